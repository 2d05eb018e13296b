'use strict'
// Keys that a corestore derives: node derive.js --dir=D --primary-key=HEX --names=A/B,C    A/B is name B in namespace A
const Corestore = require('corestore')
const { args: parse, limit, main, say } = require('./blocks')

main(async () => {
  const args = parse()
  limit(60)
  const root = new Corestore(args.dir, { primaryKey: Buffer.from(args['primary-key'], 'hex'), unsafe: true })
  await root.ready()
  const keys = []
  for (const path of args.names.split(',')) {
    const names = path.split('/')
    const store = names.slice(0, -1).reduce((store, name) => store.namespace(name), root)
    const core = store.get({ name: names.at(-1) })
    await core.ready()
    keys.push(core.key.toString('hex'))
  }
  say({ event: 'derived', keys })
  process.exit(0)
})
