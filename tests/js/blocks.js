'use strict'
// What the test programs share: block contents that both languages can make, arguments, connections, a time limit.
const net = require('net')
const NoiseSecretStream = require('@hyperswarm/secret-stream')

// Block i of a test feed: its number as text, repeated up to the size. Forks count from 1000 times their number.
exports.block = (i, size, fork = 0) => Buffer.alloc(size, `block ${i + 1000 * fork} `)

exports.args = () => {
  const args = {}
  for (const arg of process.argv.slice(2)) {
    const [, name, value] = arg.match(/^--([^=]+)(?:=(.*))?$/)
    args[name] = value === undefined ? true : value
  }
  return args
}

exports.say = (line) => process.stdout.write(JSON.stringify(line) + '\n')

// No test program outlives its test for long.
exports.limit = (seconds) =>
  setTimeout(() => {
    exports.say({ event: 'timeout' })
    process.exit(3)
  }, seconds * 1000).unref()

const stream = (initiator, socket) => {
  socket.setNoDelay(true)
  const secret = new NoiseSecretStream(initiator, socket)
  secret.on('error', (error) => exports.say({ event: 'connection-error', error: error.message }))
  secret.on('close', () => exports.say({ event: 'connection-closed' }))
  return secret
}

// Connects to --connect=HOST:PORT, or joins the cores' topics in the DHT that begins at --bootstrap=HOST:PORT, or listens
// on loopback; each connection is handed to `replicate`.
exports.connect = (args, replicate, cores = []) => {
  if (args.bootstrap) {
    const Hyperswarm = require('hyperswarm')
    const DHT = require('hyperdht')
    const swarm = new Hyperswarm({ dht: new DHT({ bootstrap: args.bootstrap.split(','), ephemeral: true, host: '127.0.0.1' }) })
    swarm.on('connection', (stream) => {
      exports.say({ event: 'connection' })
      stream.on('error', () => {})
      stream.on('close', () => exports.say({ event: 'connection-closed' }))
      replicate(stream)
    })
    const joined = cores.map((core) => swarm.join(core.discoveryKey).flushed())
    Promise.all(joined).then(() => exports.say({ event: 'joined' }))
    return
  }
  if (args.connect) {
    const [host, port] = args.connect.split(':')
    const socket = net.connect(Number(port), host, () => replicate(stream(true, socket)))
    return
  }
  const server = net.createServer((socket) => replicate(stream(false, socket)))
  server.listen(0, '127.0.0.1', () => exports.say({ event: 'listening', port: server.address().port }))
}

exports.main = (run) =>
  run().catch((error) => {
    exports.say({ event: 'failed', error: error.stack })
    process.exit(1)
  })
