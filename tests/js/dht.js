// Nodes of the HyperDHT that do what they are told.
//
//   node dht.js --nodes=N [--bootstrap=HOST:PORT,…]
//
// Begins N nodes of the DHT (the first of all with its address told) and a guest, prints
// {"event":"ready","bootstrap":["127.0.0.1:…",…]}, then reads one command per line, each {"do":…,…}, and answers it
// with {"event":…}. The guest does what is asked; keys are made from "seed", a byte.
const DHT = require('hyperdht')
const Hyperswarm = require('hyperswarm')
const readline = require('readline')

const options = Object.fromEntries(process.argv.slice(2).map((arg) => arg.replace(/^--/, '').split('=')))
const say = (event, more) => console.log(JSON.stringify({ event, ...more }))
const keyPair = (seed) => DHT.keyPair(Buffer.alloc(32, seed))
const hex = (buffer) => buffer.toString('hex')
const bytes = (text) => Buffer.from(text, 'hex')

const servers = new Map()
const swarms = new Map()

const commands = {
  async announce(dht, { topic, seed, relays = [] }) {
    const query = dht.announce(bytes(topic), keyPair(seed), relays)
    await query.finished()
    return { closest: query.closestNodes.length }
  },
  async unannounce(dht, { topic, seed }) {
    await dht.unannounce(bytes(topic), keyPair(seed))
  },
  async lookup(dht, { topic }) {
    const peers = {}
    let nodes = 0
    for await (const answer of dht.lookup(bytes(topic))) {
      nodes++
      for (const peer of answer.peers) peers[hex(peer.publicKey)] = peer.relayAddresses
    }
    return { peers, nodes }
  },
  async findPeer(dht, { key }) {
    for await (const { peer } of dht.findPeer(bytes(key))) return { relays: peer.relayAddresses }
    return { relays: null }
  },
  async mutablePut(dht, { seed, seq, value }) {
    await dht.mutablePut(keyPair(seed), Buffer.from(value), { seq })
  },
  async mutableGet(dht, { key, seq = 0 }) {
    const found = await dht.mutableGet(bytes(key), { seq })
    return found ? { seq: found.seq, value: found.value.toString() } : { seq: null }
  },
  async immutablePut(dht, { value }) {
    const { hash } = await dht.immutablePut(Buffer.from(value))
    return { hash: hex(hash) }
  },
  async immutableGet(dht, { hash }) {
    const found = await dht.immutableGet(bytes(hash))
    return { value: found ? found.value.toString() : null }
  },
  // A server that says back what it hears.
  async listen(dht, { seed }) {
    const server = dht.createServer((stream) => {
      stream.on('error', () => {})
      stream.on('data', (data) => stream.write(data))
      stream.on('end', () => stream.end())
    })
    await server.listen(keyPair(seed))
    servers.set(seed, server)
    return { key: hex(server.publicKey), relays: server.relayAddresses }
  },
  async unlisten(dht, { seed }) {
    await servers.get(seed).close()
  },
  // Sends bytes, and counts those that come back the same.
  async connect(dht, { seed, key, bytes: count = 100000 }) {
    const stream = dht.connect(bytes(key), { keyPair: keyPair(seed) })
    const sent = Buffer.alloc(count, 'what is sent ')
    let same = 0
    await new Promise((resolve, reject) => {
      stream.on('error', reject)
      stream.on('open', () => {
        for (let at = 0; at < count; at += 60000) stream.write(sent.subarray(at, at + 60000))
      })
      stream.on('data', (data) => {
        if (!data.equals(sent.subarray(same, same + data.length))) return reject(new Error('other bytes'))
        same += data.length
        if (same === count) resolve()
      })
      stream.on('close', () => reject(new Error('closed')))
    })
    stream.removeAllListeners('close')
    stream.end()
    return { same, remote: hex(stream.remotePublicKey) }
  },
  // Joins a topic, greets everybody there and notes what they say.
  async swarm(dht, { seed, topic, client = true, server = true }) {
    const own = new DHT({ bootstrap: dht.bootstrapNodes, ephemeral: true, host: '127.0.0.1' })
    const swarm = new Hyperswarm({ keyPair: keyPair(seed), dht: own })
    swarm.heard = {}
    swarm.count = 0
    swarm.on('connection', (stream) => {
      swarm.count++
      const key = hex(stream.remotePublicKey)
      stream.on('error', () => {})
      stream.on('data', (data) => (swarm.heard[key] = data.toString()))
      stream.write(Buffer.from('hello from ' + seed))
    })
    await swarm.join(bytes(topic), { client, server }).flushed()
    swarms.set(seed, swarm)
    return { key: hex(swarm.keyPair.publicKey) }
  },
  // Announces itself at many topics.
  async topics(dht, { seed, count }) {
    const swarm = new Hyperswarm({ keyPair: keyPair(seed), dht })
    const joined = []
    for (let n = 0; n < count; n++) {
      joined.push(swarm.join(Buffer.alloc(32, 'topic ' + n), { client: false, server: true }).flushed())
    }
    await Promise.all(joined)
    swarms.set(seed, swarm)
  },
  // Waits until so many have spoken.
  async heard(dht, { seed, peers }) {
    const swarm = swarms.get(seed)
    for (let n = 0; n < 400 && Object.keys(swarm.heard).length < peers; n++) {
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    return { heard: swarm.heard, connections: swarm.connections.size, count: swarm.count }
  },
  async leave(dht, { seed }) {
    await swarms.get(seed).destroy()
  },
  async findNode(dht, { target }) {
    const query = dht.findNode(bytes(target))
    await query.finished()
    return { closest: query.closestNodes.map(({ host, port }) => `${host}:${port}`) }
  }
}

async function main() {
  const count = Number(options.nodes || 0)
  const nodes = []
  let bootstrap = options.bootstrap ? options.bootstrap.split(',') : []
  for (let n = 0; n < count; n++) {
    let node
    if (bootstrap.length) {
      node = new DHT({ ephemeral: false, firewalled: false, bootstrap, host: '127.0.0.1', port: 0 })
    } else {
      const port = 20000 + Math.floor(Math.random() * 20000)
      node = DHT.bootstrapper(port, '127.0.0.1', { bootstrap: [] })
      bootstrap = ['127.0.0.1:' + port]
    }
    await node.fullyBootstrapped()
    nodes.push(node)
  }
  const guest = new DHT({ bootstrap, ephemeral: true, host: '127.0.0.1' })
  await guest.fullyBootstrapped()
  say('ready', {
    bootstrap,
    nodes: nodes.map((node) => '127.0.0.1:' + node.io.serverSocket.address().port),
    hosts: nodes.filter((node) => !node.ephemeral).length,
    known: nodes.map((node) => node.nodes.length)
  })
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const command = JSON.parse(line)
    try {
      say(command.do, await commands[command.do](guest, command))
    } catch (error) {
      say('error', { message: error.message })
    }
  }
  process.exit(0)
}

main()
