'use strict'
// Many feeds in one process, each told what to do by lines on standard input: node matrix.js --dir=D
//
//   {"id": 1, "cell": "name", "do": "author", "kind": "v1 | compat | two-of-three", "store": "plain | corestore", "blocks": N, "size": S}
//   {"id": 2, "cell": "name", "do": "append", "count": N}       {"do": "truncate", "length": N}
//   {"id": 3, "cell": "name", "do": "read", "key": HEX, "store": …, "size": S, "port": P}
//   {"id": 4, "cell": "name", "do": "fetch", "start": A, "end": B}       waits for blocks, compares each
//   {"id": 5, "cell": "name", "do": "follow", "length": N, "fork": F, "cut": C}      waits for a head and all its blocks
//   {"id": 6, "cell": "name", "do": "here"}                     how many blocks are here; also "start" (fetch all) and "close"
//
// Each is answered by {"event": "answer", "id": …, …}. A reader that is killed and run again in the same folder goes on.
const net = require('net')
const path = require('path')
const readline = require('readline')
const Corestore = require('corestore')
const Hypercore = require('hypercore')
const NoiseSecretStream = require('@hyperswarm/secret-stream')
const signed = require('./signed')
const { args: parse, block, limit, main, say } = require('./blocks')

const { dir, seconds = 240 } = parse()
const cells = new Map()
// What each cell was told last: it does one thing after the other.
const busy = new Map()

const folder = (cell) => path.join(dir, cell.replace(/[^a-z0-9]+/gi, '-'))

// One core, alone or in a corestore, and how it is replicated over a stream.
async function open(cell, { kind, key = null, store }) {
  let core
  const corestore = store === 'corestore' ? new Corestore(folder(cell)) : null
  const replicate = (stream) => (corestore || core).replicate(stream)
  if (kind === 'two-of-three') {
    const feed = await signed.open(kind, folder(cell), corestore, cell)
    core = feed.core
    return { ...feed, replicate, close: () => (corestore || core).close() }
  }
  if (corestore) core = corestore.get(key ? { key } : { name: 'feed', compat: kind === 'compat' })
  else core = new Hypercore(folder(cell), key, { compat: kind === 'compat' })
  await core.ready()
  return {
    core,
    replicate,
    append: (blocks) => core.append(blocks),
    truncate: (length) => core.truncate(length),
    close: () => (corestore || core).close()
  }
}

function secret(feed, initiator, socket) {
  socket.setNoDelay(true)
  const stream = new NoiseSecretStream(initiator, socket)
  stream.on('error', () => {})
  feed.streams.push(stream)
  return stream
}

async function append({ core, append, size }, count) {
  const end = core.length + count
  const batch = Math.max(1, Math.min(16, Math.floor((1 << 24) / (size + 1))))
  while (core.length < end) {
    const blocks = []
    while (blocks.length < batch && core.length + blocks.length < end) {
      blocks.push(block(core.length + blocks.length, size, core.fork))
    }
    await append(blocks)
  }
}

// Which blocks are not as their author wrote them, from `cut` on in this fork.
async function wrong({ core, size }, start, end, fork = 0, cut = 0) {
  const bad = []
  const check = async (i) => {
    const expected = block(i, size, i < cut ? 0 : fork)
    if (!(await core.get(i)).equals(expected)) bad.push(i)
  }
  await Promise.all([...Array(end - start).keys()].map((i) => check(start + i)))
  return bad
}

const DO = {
  async author({ cell, kind, store, blocks, size }) {
    const feed = { ...(await open(cell, { kind, store })), size, streams: [] }
    cells.set(cell, feed)
    await append(feed, blocks)
    feed.server = net.createServer((socket) => feed.replicate(secret(feed, false, socket)))
    await new Promise((resolve) => feed.server.listen(0, '127.0.0.1', resolve))
    return { key: feed.core.key.toString('hex'), port: feed.server.address().port }
  },

  async append({ cell, count }) {
    await append(cells.get(cell), count)
    return { length: cells.get(cell).core.length }
  },

  async truncate({ cell, length }) {
    await cells.get(cell).truncate(length)
    return { fork: cells.get(cell).core.fork }
  },

  async read({ cell, key, store, size, port }) {
    const feed = { ...(await open(cell, { key: Buffer.from(key, 'hex'), store })), size, streams: [] }
    cells.set(cell, feed)
    const found = feed.core.findingPeers()
    const connect = () => {
      const socket = net.connect(port, '127.0.0.1', () => {
        const stream = secret(feed, true, socket)
        stream.once('open', () => setImmediate(found))
        // Again, as a swarm does.
        stream.once('close', () => {
          if (cells.get(cell) === feed) setTimeout(connect, 100)
        })
        feed.replicate(stream)
      })
    }
    connect()
    return {}
  },

  async fetch({ cell, start, end }) {
    const feed = cells.get(cell)
    await feed.core.update({ wait: true })
    return { wrong: await wrong(feed, start, end), length: feed.core.length }
  },

  async follow({ cell, length, fork = 0, cut = 0 }) {
    const feed = cells.get(cell)
    await feed.core.update({ wait: true })
    const download = feed.core.download({ start: 0, end: -1 })
    // One reader in a hundred takes a late answer about the old fork for a lie, and pauses its only peer for good (hypercore
    // 11.37, `paused`): it needs another connection.
    const again = setInterval(() => feed.streams.forEach((stream) => stream.destroy()), 15_000)
    while (feed.core.fork < fork || feed.core.length < length) await new Promise((resolve) => setTimeout(resolve, 10))
    const bad = await wrong(feed, 0, length, fork, cut)
    clearInterval(again)
    download.destroy()
    return { wrong: bad, length: feed.core.length, fork: feed.core.fork }
  },

  async start({ cell }) {
    const feed = cells.get(cell)
    await feed.core.update({ wait: true })
    feed.download = feed.core.download({ start: 0, end: -1 })
    return {}
  },

  async close({ cell }) {
    const feed = cells.get(cell)
    if (!feed) return {}
    cells.delete(cell)
    for (const stream of feed.streams) stream.destroy()
    if (feed.server) feed.server.close()
    await feed.close()
    return {}
  },

  async here({ cell }) {
    const { core } = cells.get(cell)
    let here = 0
    for (let i = 0; i < core.length; i++) if (await core.has(i)) here++
    return { here, length: core.length }
  }
}

main(async () => {
  limit(Number(seconds))
  say({ event: 'ready' })
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const order = JSON.parse(line)
    // One that hangs can still be closed.
    const before = order.do === 'close' ? null : busy.get(order.cell)
    const run = Promise.resolve(before).then(() => DO[order.do](order)).then(
      (answer) => say({ event: 'answer', id: order.id, ...answer }),
      (error) => say({ event: 'answer', id: order.id, error: error.stack })
    )
    busy.set(order.cell, run)
  }
  process.exit(0)
})
