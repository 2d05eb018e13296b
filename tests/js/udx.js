// One end of a UDX stream, as today's udx-native speaks it.
//
//   node udx.js MODE [--name=value …]
//
//   send      writes --bytes=N of the pattern, ends, waits for the remote's end
//   receive   reads until the remote ends, checks the pattern, ends
//   echo      writes back what it reads, ends when the remote does
//   messages  sends back unordered messages
//   abort     destroys the stream once it has read something
//
// With --check=no the pattern is not checked, for measurements.
//
// Prints {"event":"listening","port":…} and waits for a line "connect PORT" on its input. Both ids are 1 at ours
// and 2 here, unless --ours= and --theirs= say otherwise. Byte n of the pattern is (n * 7 + (n >> 8)) & 255.
const UDX = require('udx-native')
const readline = require('readline')

const [mode, ...rest] = process.argv.slice(2)
const options = Object.fromEntries(rest.map((option) => option.slice(2).split('=')))
const bytes = Number(options.bytes || 0)
const say = (event, more) => console.log(JSON.stringify({ event, ...more }))

const PERIOD = 65536
const pattern = Buffer.alloc(2 * PERIOD)
for (let n = 0; n < pattern.length; n++) pattern[n] = (n * 7 + (n >> 8)) & 255
const piece = (from, length) => pattern.subarray(from % PERIOD, (from % PERIOD) + length)

const udx = new UDX()
const socket = udx.createSocket()
const stream = udx.createStream(Number(options.theirs || 2), { firewall: () => false })
socket.bind(0, '127.0.0.1')

let begin = 0
let read = 0
function check(data) {
  if (read === 0) begin = Date.now()
  if (mode !== 'echo' && options.check !== 'no' && !data.equals(piece(read, data.length))) {
    say('wrong', { at: read })
    process.exit(1)
  }
  read += data.length
}

async function send() {
  const start = Date.now()
  for (let sent = 0; sent < bytes; sent += 65536) {
    const drained = stream.write(piece(sent, Math.min(65536, bytes - sent)))
    if (!drained) await new Promise((resolve) => stream.once('drain', resolve))
  }
  stream.end()
  stream.on('finish', async () => {
    await stream.flush()
    say('sent', { bytes, ms: Date.now() - start, again: stream.retransmits, timeouts: stream.rtoCount, packets: stream.packetsTransmitted })
  })
}

stream.on('close', () => {
  say('closed')
  socket.close()
})
stream.on('error', (error) => say('error', { code: error.code }))
stream.on('message', (message) => stream.trySend(message))

const modes = {
  send() {
    stream.resume()
    send()
  },
  receive() {
    stream.on('data', check)
    stream.on('end', () => {
      say('received', { bytes: read, ms: Date.now() - begin })
      stream.end()
    })
  },
  echo() {
    stream.on('data', (data) => {
      check(data)
      if (!stream.write(data)) {
        stream.pause()
        stream.once('drain', () => stream.resume())
      }
    })
    stream.on('end', () => stream.end())
  },
  messages() {
    stream.resume()
    stream.on('end', () => stream.end())
  },
  abort() {
    stream.on('data', () => stream.destroy())
  }
}

say('listening', { port: socket.address().port })
readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const [word, port] = line.split(' ')
  if (word === 'connect') {
    stream.connect(socket, Number(options.ours || 1), Number(port), '127.0.0.1')
    modes[mode]()
  } else if (word === 'move') {
    // With nothing in flight it is done at once, and returns null.
    Promise.resolve(stream.changeRemote(socket, Number(options.ours || 1), Number(port), '127.0.0.1')).then(() =>
      say('moved')
    )
  }
})
setTimeout(() => process.exit(2), 120000).unref()
