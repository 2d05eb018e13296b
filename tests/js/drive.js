'use strict'
// A Hyperdrive that does as it is told: node drive.js --dir=D (--primary=HEX | --key=HEX) [--encryption=HEX]
// [--connect=H:P | --bootstrap=H:P]
// Each line of standard input is a command, a list with its name and arguments; each is answered by a line "done".
const crypto = require('crypto')
const readline = require('readline')
const Corestore = require('corestore')
const Hyperdrive = require('hyperdrive')
const Localdrive = require('localdrive')
const { args: parse, block, connect, limit, main, say } = require('./blocks')

const hash = (bytes) => crypto.createHash('blake2b512').update(bytes).digest('hex')

main(async () => {
  const args = parse()
  limit(Number(args.seconds || 300))
  const primaryKey = args.primary && Buffer.from(args.primary, 'hex')
  const store = new Corestore(args.dir, primaryKey ? { primaryKey, unsafe: true } : {})
  const encryptionKey = args.encryption ? Buffer.from(args.encryption, 'hex') : null
  const drive = new Hyperdrive(store, args.key ? Buffer.from(args.key, 'hex') : null, { encryptionKey })
  await drive.ready()
  const found = drive.findingPeers()
  connect(args, (stream) => {
    store.replicate(stream)
    stream.opened.then(() => setImmediate(found))
  }, [drive.core])
  say({ event: 'drive', key: drive.key.toString('hex') })

  const blocksOf = async (core) => {
    const blocks = []
    for (let i = 0; i < core.length; i++) blocks.push(hash(await core.get(i)))
    return blocks
  }
  let batch = null
  const to = () => batch || drive
  const commands = {
    put: (path, text, options) => to().put(path, Buffer.from(text), options),
    fill: (path, size) => to().put(path, block(0, size)),
    symlink: (path, target) => to().symlink(path, target),
    del: (path) => to().del(path),
    batch: () => (batch = drive.batch()),
    async flush() {
      await batch.flush()
      batch = null
    },
    // A key as nobody writes it who goes through Hyperdrive.
    raw: (key, value) => drive.db.put(Buffer.from(key), value, { keyEncoding: 'binary' }),
    fromFolder: (folder, dedup) => new Localdrive(folder).mirror(drive, { dedup }).done(),
    async toFolder(folder) {
      await drive.update({ wait: true })
      await drive.mirror(new Localdrive(folder)).done()
    },
    async download(folder) {
      await drive.update({ wait: true })
      await drive.download(folder).done()
      return drive.has(folder)
    },
    async get(path) {
      await drive.update({ wait: true })
      const content = await drive.get(path)
      return content && content.toString()
    },
    async list(version) {
      await drive.update({ wait: true })
      const at = version ? drive.checkout(version) : drive
      const list = []
      for await (const { key, value } of at.list()) {
        const content = value.blob && (await at.get({ key, value }))
        list.push([key, value.executable, value.linkname, content && hash(content)])
      }
      return list
    },
    history: async () => {
      const list = []
      for await (const { seq, type, key } of drive.db.createHistoryStream()) list.push([seq, type, key])
      return list
    },
    async version() {
      await drive.update()
      return drive.version
    },
    async blocks() {
      return {
        metadata: await blocksOf(drive.core),
        blobs: await blocksOf((await drive.getBlobs()).core),
        blobsKey: drive.contentKey.toString('hex')
      }
    }
  }
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [name, ...rest] = JSON.parse(line)
    const result = await commands[name](...rest)
    say({ event: 'done', result: result === undefined || name === 'batch' ? null : result })
  }
  process.exit(0)
})
