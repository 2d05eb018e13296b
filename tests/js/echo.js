// A Protomux peer over TCP and secret stream that says back what it hears.
//
//   node echo.js listen              prints {"event":"listening","port":…}, answers one connection
//   node echo.js connect PORT        calls
//
// Channels of protocol `echo` are accepted under any id, all others rejected. Each opens with a string.
//   0 raw     the same comes back
//   1 uint    so many messages of kind 0 come back in one batch, the n-th of n bytes
//   2 empty   the channel is closed, and opened anew
const net = require('net')
const SecretStream = require('@hyperswarm/secret-stream')
const Protomux = require('protomux')
const c = require('compact-encoding')

const [mode, port] = process.argv.slice(2)
const say = (event, more) => console.log(JSON.stringify({ event, ...more }))

function serve(isInitiator, socket) {
  const stream = new SecretStream(isInitiator, socket, { keepAlive: 500 })
  const mux = new Protomux(stream)
  stream.on('connect', () =>
    say('connected', {
      publicKey: stream.publicKey.toString('hex'),
      remotePublicKey: stream.remotePublicKey.toString('hex'),
      handshakeHash: stream.handshakeHash.toString('hex')
    })
  )
  stream.on('error', (error) => say('error', { message: error.message }))
  stream.on('close', () => process.exit(0))
  mux.pair({ protocol: 'echo' }, (id) => open(mux, id))
  if (isInitiator) open(mux, Buffer.from('called'))
}

function open(mux, id) {
  const channel = mux.createChannel({
    protocol: 'echo',
    id,
    handshake: c.string,
    onopen: (greeting) => say('open', { id: id && id.toString(), greeting }),
    onclose: (isRemote) => say('close', { id: id && id.toString(), isRemote })
  })
  const echo = channel.addMessage({ encoding: c.raw, onmessage: (body) => echo.send(body) })
  channel.addMessage({
    encoding: c.uint,
    onmessage(count) {
      channel.cork()
      for (let n = 0; n < count; n++) echo.send(Buffer.alloc(n, n))
      channel.uncork()
    }
  })
  channel.addMessage({
    encoding: c.none,
    onmessage() {
      channel.close()
      open(mux, id)
    }
  })
  channel.open('hello from JavaScript')
}

if (mode === 'listen') {
  const server = net.createServer((socket) => {
    server.close()
    serve(false, socket)
  })
  server.listen(0, '127.0.0.1', () => say('listening', { port: server.address().port }))
} else {
  serve(true, net.connect(Number(port), '127.0.0.1'))
}
setTimeout(() => process.exit(1), 60000).unref()
