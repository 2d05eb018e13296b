'use strict'
// JavaScript's encoders: node encode.js
//
// A line {"kind": …, "values": […]} on the input is answered by {"event":"encoded","bytes":[hex, …]}. What was encoded is also
// decoded again; where something else comes out there is a text about it instead of bytes. In values "0x…" stands for
// bytes, {"words":[…]} for words of 32 bits.
const c = require('compact-encoding')
const IO = require('dht-rpc/lib/io')
const Protomux = require('protomux')
const readline = require('readline')
const { wire, manifest } = require('hypercore/lib/messages')
const records = require('hyperdht/lib/messages')
const { main, say } = require('./blocks')

const compact = {
  uint: c.uint,
  buffer: c.buffer,
  'optional buffer': c.optionalBuffer,
  string: c.string,
  words: c.uint32array,
  array: c.array(c.buffer)
}

const kinds = {
  manifest: both(manifest),
  request: { encode: encodeRequest, decode: decodeRequest },
  response: { encode: encodeResponse, decode: decodeResponse },
  mux: { encode: encodeFrame, decode: null }
}
for (const [name, encoding] of Object.entries(compact)) kinds[name] = both(encoding)
for (const [name, encoding] of Object.entries(wire)) kinds['hypercore ' + name] = both(encoding)
for (const [name, encoding] of Object.entries(records)) kinds['hyperdht ' + name] = both(encoding)
// A manifest is in a message as its author wrote it.
kinds['hypercore data'].encode = (value) =>
  c.encode(wire.data, value.manifest ? { ...value, manifest: c.decode(manifest, value.manifest) } : value)
kinds['hypercore data'].decode = (bytes) => {
  const value = c.decode(wire.data, bytes)
  return value.manifest ? { ...value, manifest: c.encode(manifest, value.manifest) } : value
}

function both(encoding) {
  return { encode: (value) => c.encode(encoding, value), decode: (bytes) => c.decode(encoding, bytes) }
}

// Datagrams of dht-rpc, which encodes them on the way to a socket and decodes them on the way from one.
const from = { host: '9.9.9.9', port: 9 }
function io({ id, token, closer }, sent) {
  const socket = { trySend: (buffer) => sent.push(buffer) }
  const table = { id, closest: () => closer || [] }
  const base = { ephemeral: !id, serverSocket: socket, clientSocket: socket, firewalled: false, suspended: false, table, inflight: [] }
  const stats = { commands: [], requests: { active: 0, total: 0, responses: 0 } }
  const own = { ...base, stats, token: () => token, _tid: 0, _destroying: null, congestion: { recv() {} }, onresponse() {} }
  return Object.assign(Object.create(IO.prototype), own)
}

function requestOf(node, { tid, to, token, internal, command, target, value }) {
  node._tid = tid
  return node.createRequest(to, token || null, internal, command, target || null, value || null, null, 0)
}

function encodeRequest(value) {
  const node = io(value, [])
  return requestOf(node, value)._encodeRequest(value.token || null, value.value || null, value.to, node.serverSocket)
}

function decodeRequest(bytes, { id, token }) {
  const node = io({ token }, [])
  let heard = null
  node.onrequest = (request) => (heard = request)
  node.onmessage(node.serverSocket, bytes, from)
  const { tid, to, internal, command, target, value } = heard
  return { tid, id, to: { ...to, id: null }, token: heard.token, internal, command, target, value }
}

function encodeResponse(value) {
  const sent = []
  const request = requestOf(io(value, sent), { ...value, command: 0, internal: true, target: Buffer.alloc(32) })
  request._sendReply(value.error, value.value || null, !!value.token, true, value.to, request.socket)
  return sent[0]
}

function decodeResponse(bytes, { tid, id }) {
  const node = io({}, [])
  let heard = null
  requestOf(node, { tid, to: from, command: 9, internal: false }).onresponse = (response) => (heard = response)
  node.onmessage(node.serverSocket, bytes, from)
  const closer = (heard.closerNodes || []).map((node) => ({ ...node, id: null }))
  return { tid: heard.tid, id, to: { ...heard.to, id: null }, token: heard.token, closer, error: heard.error, value: heard.value }
}

// What one side of a connection does in one go, as a frame: [["open", protocol, id, handshake], ["send", channel, kind, body], ["close", channel], …]
function encodeFrame(steps) {
  const frames = []
  const nothing = () => {}
  const stream = { userData: null, setKeepAlive: nothing, on: nothing, write: (frame) => frames.push(frame), pause: nothing, resume: nothing }
  const mux = new Protomux(stream)
  const channels = []
  mux.cork()
  for (const [what, ...rest] of steps) {
    if (what === 'open') {
      const [protocol, id, handshake] = rest
      const messages = Array.from({ length: 300 }, () => ({ encoding: c.raw }))
      const channel = mux.createChannel({ protocol, id: id.length ? id : null, handshake: c.raw, messages, unique: false })
      channel.open(handshake)
      channels.push(channel)
    } else if (what === 'send') {
      channels[rest[0]].messages[rest[1]].send(rest[2])
    } else {
      channels[rest[0]].close()
    }
  }
  mux.uncork()
  return Buffer.concat(frames)
}

// What was meant by JSON.
function revive(value) {
  if (typeof value === 'string' && value.startsWith('0x')) return Buffer.from(value.slice(2), 'hex')
  if (Array.isArray(value)) return value.map(revive)
  if (value === null || typeof value !== 'object') return value
  if (value.words) return Uint32Array.from(value.words)
  return Object.fromEntries(Object.entries(value).map(([name, value]) => [name, revive(value)]))
}

// A text that is the same for the same: what is not there, empty or 0 is one.
function plain(value) {
  if (value instanceof Uint8Array) return value.length ? Buffer.from(value).toString('hex') : null
  if (value instanceof Uint32Array) value = Array.from(value)
  if (Array.isArray(value)) return value.length ? value.map(plain) : null
  if (value === null || typeof value !== 'object') return value || null
  const entries = Object.entries(value).map(([name, value]) => [name, plain(value)])
  return Object.fromEntries(entries.filter(([, value]) => value !== null).sort(([one], [other]) => (one < other ? -1 : 1)))
}

function encode({ encode, decode }, value) {
  const bytes = encode(value)
  const meant = JSON.stringify(plain(value))
  const found = decode ? JSON.stringify(plain(decode(bytes, value))) : meant
  return meant === found ? bytes.toString('hex') : `${meant} comes out as ${found}`
}

main(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { kind, values } = JSON.parse(line)
    say({ event: 'encoded', bytes: values.map((value) => encode(kinds[kind], revive(value))) })
  }
  process.exit(0)
})
