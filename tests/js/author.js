// An author who knows nothing of DatDot: makes a feed of a file and serves it over TCP and secret stream, or to whoever finds it
// in a swarm.
//
//   node author.js FILE FOLDER [compat | encrypted | slow]   prints {"event":"listening","key":…,"port":…}
//   node author.js FILE FOLDER swarm HOST:PORT               the same, without a port, once it is announced in the DHT that begins there
const fs = require('fs')
const net = require('net')
const Corestore = require('corestore')
const Hypercore = require('hypercore')
const Hyperswarm = require('hyperswarm')
const SecretStream = require('@hyperswarm/secret-stream')

const BLOCK = 65536
// Bytes a second of an author with a slow line.
const SLOW = 12 << 20
const [file, folder, kind, bootstrap] = process.argv.slice(2)

async function main() {
  const store = kind === 'compat' ? null : new Corestore(folder)
  const encryptionKey = kind === 'encrypted' ? Buffer.alloc(32, 5) : null
  const core = store ? store.get({ name: 'file', encryptionKey }) : new Hypercore(folder, null, { compat: true })
  await core.ready()
  const blocks = []
  const content = fs.readFileSync(file)
  for (let at = 0; at < content.length; at += BLOCK) blocks.push(content.subarray(at, at + BLOCK))
  await core.append(blocks)

  if (kind === 'swarm') {
    const swarm = new Hyperswarm({ bootstrap: [bootstrap] })
    swarm.on('connection', (stream) => {
      stream.on('error', () => {})
      store.replicate(stream)
    })
    await swarm.join(core.discoveryKey, { client: false, server: true }).flushed()
    return console.log(JSON.stringify({ event: 'listening', key: core.key.toString('hex') }))
  }

  const server = net.createServer((socket) => {
    const stream = new SecretStream(false, socket)
    stream.on('error', () => {})
    if (store) store.replicate(stream)
    else core.replicate(stream)
  })
  const listening = (port) => console.log(JSON.stringify({ event: 'listening', key: core.key.toString('hex'), port }))
  server.listen(0, '127.0.0.1', () => {
    const { port } = server.address()
    if (kind === 'slow') slowLine(port, listening)
    else listening(port)
  })
}

// A port whose connections go to another one, with SLOW bytes a second on the way back.
function slowLine(port, listening) {
  const line = net.createServer((reader) => {
    const author = net.connect(port, '127.0.0.1')
    reader.pipe(author)
    author.on('data', (bytes) => {
      reader.write(bytes)
      author.pause()
      setTimeout(() => author.resume(), (bytes.length * 1000) / SLOW)
    })
    for (const [end, other] of [[reader, author], [author, reader]]) {
      end.on('error', () => {})
      end.on('close', () => other.destroy())
    }
  })
  line.listen(0, '127.0.0.1', () => listening(line.address().port))
}

main()
setTimeout(() => process.exit(1), 600000).unref()
