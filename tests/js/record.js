'use strict'
// Records what peers in JavaScript say to each other on loopback, as seeds for fuzzing: node record.js FOLDER
//
// Writes FOLDER/TARGET/js-… for the targets of `tests/hostile`, whose modules say how a seed is read. Of messages of one kind a
// few are kept. Run it from time to time with newer packages: `npm --prefix tests/js run record`.
const crypto = require('crypto')
const dgram = require('dgram')
const fs = require('fs')
const os = require('os')
const path = require('path')
const c = require('compact-encoding')
const Corestore = require('corestore')
const DHT = require('hyperdht')
const Hypercore = require('hypercore')
const Hyperdrive = require('hyperdrive')
const Hyperswarm = require('hyperswarm')
const NoiseSecretStream = require('@hyperswarm/secret-stream')
const UDX = require('udx-native')
const dhtMessages = require('hyperdht/lib/messages')
const signed = require('./signed')

const [folder] = process.argv.slice(2)
const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'datdot-record-'))
const dir = () => fs.mkdtempSync(path.join(scratch, 'store-'))
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const MOST = 900
const counts = new Map()

// Keeps a seed, unless there are enough of its kind.
function keep(target, kind, bytes, most = 2) {
  const key = target + kind
  const count = counts.get(key) || 0
  if (count >= most || bytes.length > 16384) return
  const name = 'js-' + crypto.createHash('sha256').update(bytes).digest('hex').slice(0, 12)
  const file = path.join(folder, target, name)
  if (fs.existsSync(file)) return
  counts.set(key, count + 1)
  fs.mkdirSync(path.dirname(file), { recursive: true })
  fs.writeFileSync(file, bytes)
}

const part = (bytes) => Buffer.concat([Buffer.from([bytes.length & 255, bytes.length >> 8]), bytes])

// The messages of a frame of protomux, as [channel, kind, body].
function messages(frame) {
  const state = { buffer: frame, start: 0, end: frame.length }
  const [channel, kind] = [c.uint.decode(state), c.uint.decode(state)]
  if (channel !== 0 || kind !== 0) return [[channel, kind, frame.subarray(state.start)]]
  const list = []
  let at = c.uint.decode(state)
  while (state.start < state.end) {
    const length = c.uint.decode(state)
    if (length === 0) at = c.uint.decode(state)
    else {
      const message = { buffer: frame, start: state.start, end: state.start + length }
      const kind = c.uint.decode(message)
      list.push([at, kind, frame.subarray(message.start, message.end)])
      state.start += length
    }
  }
  return list
}

// One side of a connection: what it said, frame by frame.
function keepSession(frames) {
  const short = frames.filter((frame) => frame.length < 4000).slice(0, 60)
  keep('mux', 'session', Buffer.concat([Buffer.from([0]), ...short.map((frame) => Buffer.concat([Buffer.from([0]), part(frame)]))]), 9)
  // A peer: no head, follows everything; the feed that it fetches is open, and so is its own.
  for (const of of [0, 1]) {
    const said = [Buffer.from([8 + 4, 0, of, 0])]
    for (const [channel, kind, body] of frames.flatMap(messages)) {
      if (channel === 0 || body.length > MOST) continue
      said.push(Buffer.from([6, 0, 0, kind]), part(body), Buffer.from([14, 0, 64]))
    }
    keep('peer', 'session', Buffer.concat(said.slice(0, 300)), 12)
  }
  for (const frame of frames) {
    for (const [channel, kind, body] of messages(frame)) {
      if (channel === 0) {
        if (kind === 1) keep('messages', 'handshake', Buffer.concat([Buffer.from([10]), body.subarray(-33)]))
        continue
      }
      if (kind <= 9 && body.length <= MOST) keep('messages', `${kind} ${body[0]}`, Buffer.concat([Buffer.from([kind]), body]))
    }
  }
}

function keepManifest(core) {
  const { manifest } = require('hypercore/lib/messages')
  const wire = c.encode(manifest, core.manifest)
  const { signature } = core.core.header.tree
  keep('messages', 'manifest', Buffer.concat([Buffer.from([11, 2, 0]), part(signature || Buffer.alloc(64)), wire]), 20)
}

// Replicates in memory and keeps what was said on both sides.
async function replicate(one, other, until) {
  const streams = [new NoiseSecretStream(true), new NoiseSecretStream(false)]
  const frames = [[], []]
  streams.forEach((stream, at) => {
    stream.on('error', () => {})
    stream.on('data', (frame) => frame.length && frames[at].push(Buffer.from(frame)))
  })
  streams[0].rawStream.pipe(streams[1].rawStream).pipe(streams[0].rawStream)
  one.replicate(streams[0])
  other.replicate(streams[1])
  // What does not come to an end in JavaScript was said all the same.
  await Promise.race([until(), sleep(3000)])
  await sleep(200)
  frames.forEach(keepSession)
  streams.forEach((stream) => stream.destroy())
}

// The same blocks as in `tests/hostile/src/library.rs`, by another author: what that one has signed is all known there.
const blocks = [...Array(21).keys()].map((i) => Buffer.alloc([0, 1, 5, 40, 300][i % 5] + i, i))

async function feeds() {
  const keyPair = require('hypercore-crypto').keyPair(Buffer.alloc(32, 9))
  for (const compat of [false, true]) {
    const author = new Hypercore(dir(), null, { keyPair, compat })
    await author.append(blocks)
    if (!compat) keepManifest(author)
    const reader = new Hypercore(dir(), author.key)
    await reader.ready()
    await replicate(author, reader, async () => {
      await reader.update({ wait: true })
      await reader.get(3)
      await reader.seek(500)
      await reader.download({ start: 0, end: 12 }).done()
      await author.append(['one', 'more'])
      await reader.get(22)
      await reader.clear(2, 5)
      if (!compat) await author.truncate(9)
      await author.append(['another', 'history'])
      await reader.update({ wait: true })
    })
    const partial = new Hypercore(dir(), author.key)
    await replicate(reader, partial, async () => {
      await partial.update({ wait: true })
      await partial.download({ blocks: [0, 7, 10] }).done()
    })
    await Promise.all([author.close(), reader.close(), partial.close()])
  }
  for (const kind of signed.kinds) {
    const feed = await signed.open(kind, dir())
    await feed.append([Buffer.from('a'), Buffer.from('b')])
    keepManifest(feed.core)
    const reader = new Hypercore(dir(), feed.core.key)
    await reader.ready()
    await replicate(feed.core, reader, () => reader.update({ wait: true }))
  }
}

async function drive() {
  const store = new Corestore(dir())
  const drive = new Hyperdrive(store)
  for (let i = 0; i < 40; i++) await drive.put(`/folder ${i % 3}/file ${i}`, 'x'.repeat(i), i % 4 ? {} : { metadata: { i } })
  await drive.put('/run', 'x', { executable: true })
  await drive.symlink('/link', '/folder 0/file 0')
  for (let i = 0; i < 40; i += 5) await drive.del(`/folder ${i % 3}/file ${i}`)
  const batch = drive.batch()
  for (let i = 0; i < 20; i++) await batch.put(`/batch/${i}`, 'y')
  await batch.flush()
  for (let i = 0; i < drive.core.length; i++) {
    const block = await drive.core.get(i)
    keep('drive', 'block', Buffer.concat([Buffer.from([0]), block]), 30)
  }
  for await (const { key, value } of drive.list()) {
    keep('drive', 'path', Buffer.concat([Buffer.from([1]), Buffer.from('files\0' + key)]), 4)
    keep('drive', 'entry', Buffer.concat([Buffer.from([1]), Buffer.from(JSON.stringify(value))]), 6)
  }
  // A reader over the wire: several feeds on one connection.
  const other = new Corestore(dir())
  const copy = new Hyperdrive(other, drive.key)
  await copy.ready()
  await replicate(store, other, async () => {
    await copy.update({ wait: true })
    await copy.get('/run')
    for await (const _ of copy.list()) if (copy.core.length) break
  })
}

// Packets between two ends of UDX, which are native: a relay of datagrams sees them.
async function udx() {
  const lib = new UDX()
  const ends = [lib.createSocket(), lib.createSocket()]
  ends.forEach((socket) => socket.bind(0, '127.0.0.1'))
  const [first, second] = ends.map((socket) => socket.address().port)
  const relay = dgram.createSocket('udp4')
  await new Promise((resolve) => relay.bind(0, '127.0.0.1', resolve))
  let count = 0
  const session = [Buffer.from([1, 0, 0])]
  relay.on('message', (packet, { port }) => {
    count++
    keep('records', `packet ${packet[2]}`, Buffer.concat([Buffer.from([1]), packet]), 3)
    const to = port === first ? 1 : 0
    if (session.length < 60 && packet.length < MOST) {
      const number = (at) => Buffer.concat([Buffer.from([255]), packet.subarray(at, at + 4), Buffer.alloc(5)])
      const offset = packet[3] === 0 ? [1] : [0, packet[3]]
      session.push(Buffer.concat([Buffer.from([to, 10, packet[2], ...offset]), number(8), number(12), number(16), part(packet.subarray(20))]))
      session.push(Buffer.from([to, 2, to, 255]))
    }
    // Some are lost, some come late.
    if (count % 7 === 3) return
    setTimeout(() => relay.send(packet, port === first ? second : first, '127.0.0.1'), count % 5 === 2 ? 5 : 0)
  })
  const streams = [lib.createStream(1), lib.createStream(2)]
  streams[0].connect(ends[0], 2, relay.address().port, '127.0.0.1')
  streams[1].connect(ends[1], 1, relay.address().port, '127.0.0.1')
  streams.forEach((stream) => stream.on('error', () => {}).resume())
  streams[1].on('end', () => streams[1].end())
  streams[0].trySend(Buffer.from('a message'))
  for (let i = 0; i < 20; i++) streams[0].write(Buffer.alloc(400 * (i % 4), i))
  streams[1].write(Buffer.from('hello'))
  await sleep(300)
  streams[0].end()
  await sleep(1500)
  streams.forEach((stream) => stream.destroy())
  await sleep(100)
  keep('udx', 'session', Buffer.concat(session))
  relay.close()
  ends.forEach((socket) => socket.close())
}

async function dht() {
  const { encode } = dhtMessages.noisePayload
  dhtMessages.noisePayload.encode = (state, payload) => {
    const start = state.start
    encode(state, payload)
    keep('records', 'payload', Buffer.concat([Buffer.from([9]), state.buffer.subarray(start, state.start)]), 12)
  }
  const socket = require('udx-native/lib/socket').prototype
  const { trySend } = socket
  const sessions = [Buffer.from([2 + 4])]
  const asked = new Map()
  socket.trySend = function (buffer, ...to) {
    const packet = Buffer.from(buffer)
    if (packet[0] === 0x03 || packet[0] === 0x13) keepDatagram(packet, asked, sessions)
    return trySend.call(this, buffer, ...to)
  }
  const port = 20000 + Math.floor(Math.random() * 20000)
  const nodes = [DHT.bootstrapper(port, '127.0.0.1', { bootstrap: [] })]
  await nodes[0].fullyBootstrapped()
  const bootstrap = ['127.0.0.1:' + port]
  for (let i = 0; i < 6; i++) {
    nodes.push(new DHT({ ephemeral: i > 3, firewalled: i > 3, bootstrap, host: '127.0.0.1', port: 0 }))
    await nodes[nodes.length - 1].fullyBootstrapped()
  }
  const guest = nodes[nodes.length - 1]
  const keyPair = DHT.keyPair(Buffer.alloc(32, 1))
  const topic = Buffer.alloc(32, 3)
  await guest.announce(topic, keyPair, []).finished()
  await guest.lookup(topic).finished()
  await guest.findPeer(keyPair.publicKey).finished()
  await guest.mutablePut(keyPair, Buffer.from('a value'), { seq: 1 })
  await guest.mutableGet(keyPair.publicKey)
  const { hash } = await guest.immutablePut(Buffer.from('a value'))
  await guest.immutableGet(hash)
  await guest.unannounce(topic, keyPair)
  const swarms = [1, 2].map((seed) => new Hyperswarm({ keyPair: DHT.keyPair(Buffer.alloc(32, seed)), dht: nodes[seed + 3] }))
  swarms.forEach((swarm) => swarm.on('connection', (stream) => stream.on('error', () => {}).write(Buffer.from('hello'))))
  await Promise.all(swarms.map((swarm) => swarm.join(topic).flushed()))
  await sleep(2000)
  keep('dht', 'session', Buffer.concat(sessions.slice(0, 120)))
}

const VALUES = { 0: 7, 1: 8, 4: 4, 5: 4, 6: 6 }
const ANSWERS = { 2: 2, 3: 3, 7: 5 }

function keepDatagram(packet, asked, sessions) {
  const state = { buffer: packet, start: 2, end: packet.length }
  const flags = packet[1]
  const tid = c.uint16.decode(state)
  state.start += 6 + (flags & 1 ? 32 : 0) + (flags & 2 ? 32 : 0)
  let command
  const isRequest = packet[0] === 0x03
  if (isRequest) {
    command = c.uint.decode(state) + (flags & 4 ? 100 : 0)
    if (flags & 8) state.start += 32
    asked.set(tid, command)
  } else {
    command = asked.get(tid)
    if (flags & 4) state.start += 1 + 6 * packet[state.start]
    if (flags & 8) c.uint.decode(state)
  }
  const kind = `${isRequest} ${command} ${flags}`
  keep('records', kind, Buffer.concat([Buffer.from([0]), packet]))
  const value = flags & 16 ? c.buffer.decode(state) : null
  const as = (isRequest ? VALUES : ANSWERS)[command]
  if (value && as) keep('records', 'value ' + kind, Buffer.concat([Buffer.from([as]), value]))
  // From one of the strangers to the server socket of a host.
  const said = Buffer.concat([Buffer.from([9, 5]), part(packet), Buffer.from([0])])
  keep('dht', kind, Buffer.concat([Buffer.from([2 + 4]), said, said]))
  if (packet.length < MOST) sessions.push(said)
}

async function main() {
  for (const record of [feeds, drive, udx, dht]) {
    try {
      await record()
    } catch (error) {
      console.error(record.name, error)
      process.exitCode = 1
    }
  }
  fs.rmSync(scratch, { recursive: true, force: true })
  process.exit()
}

setTimeout(() => process.exit(2), 120000).unref()
main()
