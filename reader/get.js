#!/usr/bin/env node
'use strict'
// Reads a feed, from whoever has it or from one hoster, and writes its blocks, one after the other, to a file.
// Nothing of DatDot is in here: it is what anybody with the npm packages corestore, hypercore and
// hyperswarm would write.
//
//   node get.js KEY FILE --swarm [--seconds N]                        found by the key, through the public DHT
//   node get.js KEY FILE --bootstrap HOST:PORT [--seconds N]          the same through a DHT that begins there
//   node get.js KEY FILE --from HOST:PORT [--noise-key HEX] [--seconds N]
//
// Prints one JSON object per line: {"event":"connected"|"head"|"progress"|"done"|"failed", ...}. The exit code is 0 when
// every byte is written, 1 when the feed could not be read, 2 for wrong arguments.
const fs = require('fs')
const net = require('net')
const os = require('os')
const path = require('path')
const { parseArgs } = require('util')
const Corestore = require('corestore')
const Hyperswarm = require('hyperswarm')
const NoiseSecretStream = require('@hyperswarm/secret-stream')

const say = (line) => fs.writeSync(1, JSON.stringify(line) + '\n')

const USAGE = 'node get.js KEY FILE --swarm | --bootstrap HOST:PORT | --from HOST:PORT [--noise-key HEX] [--seconds N]'

function fail(code, error, hint) {
  say({ event: 'failed', error, ...(hint && { hint }) })
  fs.writeSync(2, hint ? `${error}\n${hint}\n` : `${error}\n`)
  process.exit(code)
}

function args() {
  const options = {
    swarm: { type: 'boolean' },
    bootstrap: { type: 'string', multiple: true, default: [] },
    from: { type: 'string' },
    'noise-key': { type: 'string' },
    seconds: { type: 'string', default: '600' }
  }
  let parsed
  try {
    parsed = parseArgs({ options, allowPositionals: true })
  } catch (error) {
    fail(2, error.message, USAGE)
  }
  const { values, positionals } = parsed
  const [key, file] = positionals
  const [, host, port] = (values.from || '').match(/^\[?(.+?)\]?:(\d+)$/) || []
  const ways = [values.swarm, values.bootstrap.length, host].filter(Boolean).length
  if (positionals.length !== 2 || ways !== 1) fail(2, 'a feed key, a file and one of --swarm, --bootstrap and --from are needed', USAGE)
  if (!/^[0-9a-f]{64}$/i.test(key)) fail(2, 'a feed key has 64 hex digits', USAGE)
  if (values['noise-key'] && !/^[0-9a-f]{64}$/i.test(values['noise-key'])) fail(2, 'a Noise key has 64 hex digits', USAGE)
  if (!(Number(values.seconds) > 0)) fail(2, '--seconds has to be a number above 0', USAGE)
  const { bootstrap } = values
  return { key, file, host, port: Number(port), bootstrap, noiseKey: values['noise-key'], seconds: Number(values.seconds) }
}

function connect({ host, port, noiseKey }, store) {
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, host)
    socket.setNoDelay(true)
    const options = noiseKey ? { remotePublicKey: Buffer.from(noiseKey, 'hex') } : {}
    const stream = new NoiseSecretStream(true, socket, { ...options, pattern: 'XX' })
    const gone = (error) => reject(new Error(`${host}:${port}: ${error ? error.message : 'the hoster closed the connection'}`))
    stream.on('error', gone)
    stream.on('close', () => gone())
    stream.on('open', () => {
      const remote = stream.remotePublicKey.toString('hex')
      if (noiseKey && remote !== noiseKey.toLowerCase()) return gone(new Error(`the peer has another Noise key: ${remote}`))
      say({ event: 'connected', noiseKey: remote })
      resolve(stream)
    })
    store.replicate(stream)
  })
}

// Looks for the feed by its key alone. Connections may come and go meanwhile.
async function look({ bootstrap }, store, core) {
  const swarm = new Hyperswarm(bootstrap.length ? { bootstrap } : {})
  swarm.on('connection', (stream) => {
    stream.on('error', () => {})
    say({ event: 'connected', noiseKey: stream.remotePublicKey.toString('hex') })
    store.replicate(stream)
  })
  swarm.join(core.discoveryKey, { client: true, server: false })
  await swarm.flush()
}

async function read(core, out) {
  await core.update({ wait: true })
  if (core.length === 0) throw new Error('nobody who answers has the feed')
  const total = { blocks: core.length, bytes: core.byteLength }
  say({ event: 'head', length: total.blocks, bytes: total.bytes })

  const begin = Date.now()
  let [blocks, bytes, told] = [0, 0, begin]
  const range = core.download({ start: 0, end: total.blocks, linear: true })
  // Blocks come in any order; they are written in theirs.
  for (; blocks < total.blocks; blocks++) {
    const block = await core.get(blocks)
    await out.write(block)
    bytes += block.byteLength
    if (Date.now() - told > 250) {
      told = Date.now()
      say({ event: 'progress', blocks, bytes, totalBytes: total.bytes })
    }
  }
  range.destroy()
  const seconds = (Date.now() - begin) / 1000
  return { blocks, bytes, seconds, megabytesPerSecond: Number((bytes / 1e6 / Math.max(seconds, 0.001)).toFixed(1)) }
}

async function main() {
  const options = args()
  // Readers verify everything themselves, so what they store meanwhile may go.
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'datdot-reader-'))
  const clean = () => fs.rmSync(dir, { recursive: true, force: true })
  process.on('exit', clean)
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1))
  setTimeout(() => fail(1, `nothing more came within ${options.seconds} s`), options.seconds * 1000).unref()

  const store = new Corestore(dir)
  const core = store.get({ key: Buffer.from(options.key, 'hex') })
  await core.ready()
  const found = core.findingPeers()
  let gone
  const lost = new Promise((resolve, reject) => (gone = reject))
  if (options.host) {
    const stream = await connect(options, store)
    stream.on('close', () => gone(new Error('the hoster closed the connection')))
  } else {
    await look(options, store, core)
  }
  setImmediate(found)

  const out = await fs.promises.open(options.file, 'w')
  const done = await Promise.race([read(core, out), lost])
  await out.close()
  say({ event: 'done', file: path.resolve(options.file), ...done })
  process.exit(0)
}

main().catch((error) => fail(1, error.message))
