// An author who knows nothing of DatDot: makes a feed of a file and serves it over TCP and secret stream.
//
//   node author.js FILE FOLDER [compat | slow]    prints {"event":"listening","key":…,"port":…}
const fs = require('fs')
const net = require('net')
const Corestore = require('corestore')
const Hypercore = require('hypercore')
const SecretStream = require('@hyperswarm/secret-stream')

const BLOCK = 65536
// Bytes a second of an author with a slow line.
const SLOW = 12 << 20
const [file, folder, kind] = process.argv.slice(2)

async function main() {
  const store = kind === 'compat' ? null : new Corestore(folder)
  const core = store ? store.get({ name: 'file' }) : new Hypercore(folder, null, { compat: true })
  await core.ready()
  const blocks = []
  const content = fs.readFileSync(file)
  for (let at = 0; at < content.length; at += BLOCK) blocks.push(content.subarray(at, at + BLOCK))
  await core.append(blocks)

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
