'use strict'
// JavaScript's side of `cargo xtask bench hypercore` and `hyperswarm`: node bench.js MODE --name=value …
//
// Each mode does what the mode of that name in xtask/src/peer does: it prints {"event":"ready",…}, waits for a line on
// its input, does its work, and prints {"event":"done",…}. It ends with its input.
const crypto = require('crypto')
const fs = require('fs')
const net = require('net')
const path = require('path')
const readline = require('readline')
const Corestore = require('corestore')
const DHT = require('hyperdht')
const Hyperswarm = require('hyperswarm')
const NoiseSecretStream = require('@hyperswarm/secret-stream')
const RocksDB = require('rocksdb-native')
const { main, say } = require('./blocks')

const options = Object.fromEntries(process.argv.slice(3).map((option) => option.slice(2).split('=')))
const lines = readline.createInterface({ input: process.stdin })
const orders = lines[Symbol.asyncIterator]()
lines.on('close', () => process.exit(0))

const ready = async (figures) => {
  say({ event: 'ready', ...figures })
  await orders.next()
}
const done = (figures) => say({ event: 'done', ...figures })
const timer = (begin = process.hrtime.bigint()) => () => Number(process.hrtime.bigint() - begin) / 1e9

const number = (name) => Number(options[name])

// The author's feed, with at least so many blocks.
async function filled(store, blocks, size) {
  const core = store.get({ name: 'bench' })
  await core.ready()
  while (core.length < blocks) {
    const count = Math.min(blocks - core.length, Math.max(1, Math.floor((4 << 20) / size)))
    await core.append(Array.from({ length: count }, () => crypto.randomBytes(size)))
  }
  return core
}

function secret(initiator, socket) {
  socket.setNoDelay(true)
  const stream = new NoiseSecretStream(initiator, socket)
  stream.on('error', () => {})
  return stream
}

const keyed = () => ({ key: Buffer.from(options.key, 'hex') })

async function opened() {
  const store = new Corestore(options.dir)
  const core = store.get(keyed())
  await core.ready()
  return { store, core }
}

// Brings to the disk what was written to a RocksDB: all of it is in its log. RocksDB can sync each write, but the binding has
// no option for that.
function syncer(rocks) {
  let log = null
  return async () => {
    const { number, path: name } = await rocks.currentWalFile()
    if (log === null || log.number !== number) {
      if (log !== null) {
        fs.fdatasyncSync(log.file)
        fs.closeSync(log.file)
      }
      log = { number, file: fs.openSync(path.join(rocks.path, name), 'r') }
    }
    await new Promise((resolve, reject) => fs.fdatasync(log.file, (error) => (error ? reject(error) : resolve())))
  }
}

// A RocksDB set up as hypercore sets up its own.
function rocks() {
  const db = new RocksDB(options.dir)
  const large = { enableBlobFiles: true, minBlobSize: 4096, blobFileSize: 256 << 20 }
  return { db, column: db.columnFamily(new RocksDB.ColumnFamily('blocks', large)) }
}

const place = (kind, n) => {
  const key = Buffer.alloc(9, kind)
  key.writeBigUInt64BE(BigInt(n), 1)
  return key
}

// Fetches all blocks of a feed that a peer is about to show, or some.
async function download(core, blocks) {
  await core.update({ wait: true })
  const all = { start: 0, end: core.length, linear: options.linear === 'true' }
  await core.download(blocks ? { blocks } : all).done()
}

// A node of the DHT that others don't use.
async function guest() {
  const dht = new DHT({ bootstrap: [options.bootstrap], ephemeral: true, host: '127.0.0.1' })
  await dht.fullyBootstrapped()
  return dht
}

const swarming = async () => new Hyperswarm({ dht: await guest() })

const modes = {
  async serve() {
    const seconds = timer()
    const store = new Corestore(options.dir)
    const core = options.key ? store.get(keyed()) : await filled(store, number('blocks'), number('size'))
    await core.ready()
    const opened = seconds()
    const server = net.createServer((socket) => store.replicate(secret(false, socket)))
    server.listen(0, '127.0.0.1', () => ready({ key: core.key.toString('hex'), port: server.address().port, opened }))
  },

  async fetch() {
    const { store, core } = await opened()
    await ready()
    const seconds = timer()
    const found = core.findingPeers()
    const stream = secret(true, net.connect(number('port'), '127.0.0.1'))
    store.replicate(stream)
    stream.once('open', () => setImmediate(found))
    const some = options.from && Array.from({ length: number('count') }, (_, n) => number('from') + n * number('step'))
    await download(core, some)
    done({ seconds: seconds(), bytes: core.byteLength, blocks: some ? some.length : core.length })
  },

  async append() {
    const store = new Corestore(options.dir)
    const core = store.get({ name: 'bench' })
    await core.ready()
    const sync = options.durable === 'true' ? syncer(store.storage.rocks) : () => {}
    const [blocks, size, batch] = [number('blocks'), number('size'), number('batch')]
    const all = Array.from({ length: blocks }, () => crypto.randomBytes(size))
    await ready()
    const seconds = timer()
    for (let at = 0; at < blocks; at += batch) {
      await core.append(all.slice(at, at + batch))
      await sync()
    }
    done({ seconds: seconds() })
  },

  // The same blocks in a database: each a value, with two nodes of a tree, and a head for each batch. Nothing is hashed or signed.
  async 'append-database'() {
    const { db, column } = rocks()
    await column.ready()
    const sync = syncer(db)
    const [blocks, size, batch] = [number('blocks'), number('size'), number('batch')]
    const all = Array.from({ length: blocks }, () => crypto.randomBytes(size))
    const node = crypto.randomBytes(40)
    await ready()
    const seconds = timer()
    for (let at = 0; at < blocks; at += batch) {
      const write = column.write()
      for (let n = at; n < Math.min(blocks, at + batch); n++) {
        write.tryPut(place(0, n), all[n])
        write.tryPut(place(1, 2 * n), node)
        write.tryPut(place(1, 2 * n + 1), node)
      }
      write.tryPut(place(2, 0), Buffer.concat([node, node, place(2, at)]))
      await write.flush()
      await sync()
    }
    done({ seconds: seconds() })
  },

  async 'read-database'() {
    const { column } = rocks()
    await column.ready()
    await ready()
    const seconds = timer()
    let bytes = 0
    for await (const { value } of column.iterator({ gte: place(0, 0), lt: place(1, 0) })) bytes += value.length
    done({ seconds: seconds(), bytes })
  },

  // Appends until it is killed.
  async 'append-on'() {
    const core = await filled(new Corestore(options.dir), number('blocks'), number('size'))
    const blocks = Array.from({ length: number('batch') }, () => crypto.randomBytes(number('size')))
    await ready()
    while (true) {
      await core.append(blocks)
      say({ event: 'appended', length: core.length })
    }
  },

  async reopen() {
    const seconds = timer()
    const core = new Corestore(options.dir).get({ name: 'bench' })
    await core.ready()
    await core.get(core.length - 1)
    await ready({ opened: seconds(), length: core.length })
  },

  async get() {
    const { core } = await opened()
    await ready()
    const times = []
    let state = 88172645463325252n
    for (let n = 0; n < number('count'); n++) {
      state = BigInt.asUintN(64, state ^ (state << 13n))
      state ^= state >> 7n
      state = BigInt.asUintN(64, state ^ (state << 17n))
      const seconds = timer()
      await core.get(Number(state % BigInt(core.length)))
      times.push(seconds() * 1e6)
    }
    times.sort((a, b) => a - b)
    done({ p50: times[Math.floor(times.length / 2)], p99: times[Math.floor(times.length * 0.99)] })
  },

  async make() {
    const store = new Corestore(options.dir)
    for (let n = 0; n < number('feeds'); n++) {
      const core = store.get({ name: 'feed ' + n })
      await core.append(crypto.randomBytes(1000))
      await core.close()
    }
    await store.close()
    say({ event: 'ready' })
    process.exit(0)
  },

  async open() {
    const seconds = timer()
    const store = new Corestore(options.dir)
    const cores = Array.from({ length: number('feeds') }, (_, n) => store.get({ name: 'feed ' + n }))
    await Promise.all(cores.map((core) => core.ready()))
    await ready({ opened: seconds(), feeds: cores.filter((core) => core.length === 1).length })
  },

  async 'swarm-serve'() {
    const swarm = await swarming()
    const store = new Corestore(options.dir)
    const core = await filled(store, number('blocks'), number('size'))
    swarm.on('connection', (stream) => {
      stream.on('error', () => {})
      store.replicate(stream)
    })
    await swarm.join(core.discoveryKey, { server: true, client: false }).flushed()
    await ready({ key: core.key.toString('hex') })
  },

  // A blind peer serves what an author gave it, who is gone by then.
  async 'blind-serve'() {
    const BlindPeer = require('blind-peer')
    const BlindPeering = require('blind-peering')
    fs.mkdirSync(options.dir)
    const dht = await guest()
    const store = new Corestore(path.join(options.dir, 'author'))
    const core = await filled(store, number('blocks'), number('size'))
    const host = new BlindPeer(path.join(options.dir, 'host'), {
      swarm: await swarming(),
      trustedPubKeys: [dht.defaultKeyPair.publicKey]
    })
    await host.listen()
    const author = new BlindPeering(dht, store, { keys: [host.publicKey] })
    await author.addCore(core, { announce: true })
    const copy = host.store.get({ key: core.key })
    await copy.ready()
    while (copy.contiguousLength < core.length) await new Promise((resolve) => setTimeout(resolve, 20))
    await host.swarm.flush()
    const key = core.key.toString('hex')
    await author.close()
    await store.close()
    await dht.destroy()
    await ready({ key })
  },

  async 'swarm-fetch'() {
    const swarm = await swarming()
    const { store, core } = await opened()
    await ready()
    let seconds = timer()
    swarm.on('connection', (stream) => {
      stream.on('error', () => {})
      store.replicate(stream)
    })
    const found = core.findingPeers()
    swarm.join(core.discoveryKey, { server: false, client: true })
    swarm.flush().then(found, found)
    await core.get(0)
    const first = seconds()
    seconds = timer()
    await download(core)
    done({ first, seconds: seconds(), bytes: core.byteLength })
  },

  async topics() {
    const swarm = await swarming()
    await ready()
    const seconds = timer()
    const topic = (n) => crypto.createHash('sha256').update(String(n)).digest()
    const topics = Array.from({ length: number('count') }, (_, n) => swarm.join(topic(n), { server: true, client: false }))
    await Promise.all(topics.map((topic) => topic.flushed()))
    done({ seconds: seconds(), announced: topics.length })
  },

  // The DHT of others, for both sides.
  async dht() {
    const port = 20000 + Math.floor(Math.random() * 20000)
    const bootstrap = ['127.0.0.1:' + port]
    const nodes = [DHT.bootstrapper(port, '127.0.0.1', { bootstrap: [] })]
    await nodes[0].fullyBootstrapped()
    while (nodes.length < number('nodes')) {
      nodes.push(new DHT({ ephemeral: false, firewalled: false, bootstrap, host: '127.0.0.1', port: 0 }))
      await nodes[nodes.length - 1].fullyBootstrapped()
    }
    await ready({ bootstrap: bootstrap[0] })
  },

  async listen() {
    const dht = await guest()
    const held = new Set()
    const server = dht.createServer((stream) => {
      held.add(stream)
      stream.on('error', () => {})
      stream.on('close', () => held.delete(stream))
      stream.resume()
      stream.once('open', () => held.size === number('count') && done({ connections: held.size }))
    })
    await server.listen(DHT.keyPair(Buffer.alloc(32, 1)))
    await ready({ key: server.publicKey.toString('hex') })
  }
}

main(() => modes[process.argv[2]]())
