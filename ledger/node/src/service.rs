//! Puts a node together from the parts of the Polkadot SDK: database, wasm executor, transaction pool, network, BABE,
//! GRANDPA, RPC.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use datdot_runtime::{AccountId, Hash, Nonce, RuntimeApi, opaque::Block};
use jsonrpsee::RpcModule;
use pallet_transaction_payment_rpc::{TransactionPayment, TransactionPaymentApiServer};
use sc_client_api::BlockBackend;
use sc_consensus_babe::SlotProportion;
use sc_consensus_grandpa::{SharedVoterState, VotingRulesBuilder};
use sc_executor::WasmExecutor;
use sc_network::{
    Litep2pNetworkBackend, NetworkBackend,
    config::{FullNetworkConfiguration, NetworkConfiguration, NodeKeyConfig, Secret, TransportConfig},
    multiaddr::Protocol,
};
use sc_service::{
    ChainSpec, ChainType, Configuration, Role, RpcMethods, SpawnTasksParams, TFullBackend, TFullClient,
    TransactionPoolOptions,
    config::{
        BasePath, BlocksPruning, DatabaseSource, ExecutorConfiguration, KeystoreConfig, MultiaddrWithPeerId,
        OffchainWorkerConfig, PruningMode, RpcBatchRequestConfig, RpcConfiguration, RpcEndpoint,
    },
};
use sc_transaction_pool::TransactionPoolHandle;
use sc_transaction_pool_api::OffchainTransactionPoolFactory;
use sp_consensus_babe::inherents::BabeCreateInherentDataProviders;
use sp_core::{Pair, crypto::key_types};
use sp_keystore::{Keystore, KeystorePtr};
use substrate_frame_rpc_system::{System, SystemApiServer};
use tokio::runtime::Handle;

use crate::{Error, Node, Options};

type Client = TFullClient<Block, RuntimeApi, WasmExecutor>;
type Pool = TransactionPoolHandle<Block, Client>;
type Network = Litep2pNetworkBackend;

/// The database. It is closed when the last of its users is dropped.
pub(crate) type Backend = TFullBackend<Block>;

/// A justification is kept for every so many blocks, for those who sync from peers.
const JUSTIFICATION_PERIOD: u32 = 512;

/// Blocks whose state is kept by a node that isn't an archive.
const STATES_KEPT: u32 = 256;

/// Web pages that may talk to the RPC server: local ones, and the explorer that everybody uses.
const ORIGINS: [&str; 5] = [
    "http://localhost:*",
    "http://127.0.0.1:*",
    "https://localhost:*",
    "https://127.0.0.1:*",
    "https://polkadot.js.org",
];

/// Builds everything and spawns its tasks on `handle`. Blocks for seconds; must not run on a worker of a runtime.
pub(crate) fn start(options: Options, handle: Handle) -> Result<Node, Error> {
    if let Some(secret) = &options.validator {
        sp_core::sr25519::Pair::from_string(secret, None).map_err(Error::Secret)?;
    }
    let config = configuration(&options, handle)?;
    let dir = config.data_path.clone();
    assemble(options, config).map_err(|error| match error {
        // The database has no error of its own for it.
        sc_service::Error::Client(cause) if cause.to_string().contains("in use") => Error::InUse { dir },
        other => Error::Service(other),
    })
}

fn assemble(options: Options, config: Configuration) -> Result<Node, sc_service::Error> {
    let executor = executor(&config);
    let (client, backend, keystore, mut tasks) =
        sc_service::new_full_parts::<Block, RuntimeApi, _>(&config, None, executor, Vec::new())?;
    let client: Arc<Client> = Arc::new(client);
    if let Some(secret) = &options.validator {
        insert_keys(&keystore.keystore(), secret)?;
    }

    let pool = Arc::new(
        sc_transaction_pool::Builder::new(
            tasks.spawn_essential_handle(),
            client.clone(),
            config.role.is_authority().into(),
        )
        .with_options(config.transaction_pool.clone())
        .build(),
    );

    // Blocks pass through BABE, then GRANDPA, then into the database.
    let select_chain = sc_consensus::LongestChain::new(backend.clone());
    let (grandpa_import, grandpa_link) = sc_consensus_grandpa::block_import(
        client.clone(),
        JUSTIFICATION_PERIOD,
        &(client.clone() as Arc<_>),
        select_chain.clone(),
        None,
    )?;
    let babe_config = sc_consensus_babe::configuration(&*client)?;
    let slot = babe_config.slot_duration();
    let inherents: BabeCreateInherentDataProviders<Block> = Arc::new(move |_, ()| async move {
        let now = sp_timestamp::InherentDataProvider::from_system_time();
        let slot = sp_consensus_babe::inherents::InherentDataProvider::from_timestamp_and_slot_duration(*now, slot);
        Ok((slot, now))
    });
    let (babe_import, babe_link) = sc_consensus_babe::block_import(
        babe_config,
        grandpa_import.clone(),
        client.clone(),
        inherents.clone(),
        select_chain.clone(),
        OffchainTransactionPoolFactory::new(pool.clone()),
    )?;
    let (import_queue, babe_handle) = sc_consensus_babe::import_queue(sc_consensus_babe::ImportQueueParams {
        link: babe_link.clone(),
        block_import: babe_import.clone(),
        justification_import: Some(Box::new(grandpa_import)),
        client: client.clone(),
        slot_duration: slot,
        spawner: &tasks.spawn_essential_handle(),
        registry: None,
        telemetry: None,
    })?;
    // Answers questions about epochs that nobody of ours asks; dropping it would end the import queue's task.
    tasks.keep_alive(babe_handle);

    let mut net_config = FullNetworkConfiguration::<_, _, Network>::new(&config.network, None);
    let metrics = <Network as NetworkBackend<Block, Hash>>::register_notification_metrics(None);
    let genesis = client.block_hash(0)?.expect("opening the database has written the genesis");
    let grandpa_protocol = sc_consensus_grandpa::protocol_standard_name(&genesis, &config.chain_spec);
    let (grandpa_peers, grandpa_notifications) = sc_consensus_grandpa::grandpa_peers_set_config::<Block, Network>(
        grandpa_protocol.clone(),
        metrics.clone(),
        net_config.peer_store_handle(),
    );
    net_config.add_notification_protocol(grandpa_peers);
    let (network, system_rpc_tx, tx_handler_controller, sync_service, _) =
        sc_service::build_network(sc_service::BuildNetworkParams {
            config: &config,
            net_config,
            client: client.clone(),
            transaction_pool: pool.clone(),
            spawn_handle: tasks.spawn_handle(),
            spawn_essential_handle: tasks.spawn_essential_handle(),
            import_queue,
            block_announce_validator_builder: None,
            warp_sync_config: None,
            block_relay: None,
            metrics,
            gap_sync_body_policy: None,
        })?;

    let role = config.role;
    let force_authoring = config.force_authoring;
    let is_dev = config.chain_spec.chain_type() == ChainType::Development;
    let handlers = sc_service::spawn_tasks(SpawnTasksParams {
        config,
        client: client.clone(),
        backend: backend.clone(),
        task_manager: &mut tasks,
        keystore: keystore.keystore(),
        transaction_pool: pool.clone(),
        rpc_builder: Box::new({
            let (client, pool) = (client.clone(), pool.clone());
            move |_| Ok(rpc(client.clone(), pool.clone()).map_err(|clash| Box::new(clash) as Box<_>)?)
        }),
        network: network.clone(),
        system_rpc_tx,
        tx_handler_controller,
        sync_service: sync_service.clone(),
        telemetry: None,
        tracing_execute_block: None,
    })?;

    if role.is_authority() {
        let babe = sc_consensus_babe::start_babe(sc_consensus_babe::BabeParams {
            keystore: keystore.keystore(),
            client: client.clone(),
            select_chain,
            env: sc_basic_authorship::ProposerFactory::new(
                tasks.spawn_handle(),
                client.clone(),
                pool.clone(),
                None,
                None,
            ),
            block_import: babe_import,
            sync_oracle: sync_service.clone(),
            justification_sync_link: sync_service.clone(),
            create_inherent_data_providers: inherents,
            force_authoring,
            // Slower while finality lags, but for the one who is alone and waits for nobody.
            backoff_authoring_blocks: (!is_dev)
                .then(sc_consensus_slots::BackoffAuthoringOnFinalizedHeadLagging::default),
            babe_link,
            block_proposal_slot_portion: SlotProportion::new(0.5),
            max_block_proposal_slot_portion: None,
            telemetry: None,
        })?;
        tasks.spawn_essential_handle().spawn_blocking("babe", Some("block-authoring"), babe);
    }

    // Voters keep two blocks behind the best one, which may yet be replaced; a lone voter has nobody to disagree with.
    let voting_rule = if is_dev { VotingRulesBuilder::new() } else { VotingRulesBuilder::default() }.build();
    let grandpa = sc_consensus_grandpa::run_grandpa_voter(sc_consensus_grandpa::GrandpaParams {
        config: sc_consensus_grandpa::Config {
            // A third of a second at most, less with shorter slots: a round takes some six of it.
            gossip_duration: (slot.as_duration() / 10).min(Duration::from_millis(333)),
            justification_generation_period: JUSTIFICATION_PERIOD,
            observer_enabled: false,
            local_role: role,
            name: Some(options.name),
            keystore: role.is_authority().then(|| keystore.keystore()),
            telemetry: None,
            protocol_name: grandpa_protocol,
        },
        link: grandpa_link,
        network: network.clone(),
        sync: sync_service,
        notification_service: grandpa_notifications,
        voting_rule,
        prometheus_registry: None,
        shared_voter_state: SharedVoterState::empty(),
        telemetry: None,
        offchain_tx_pool_factory: OffchainTransactionPoolFactory::new(pool),
    })?;
    tasks.spawn_essential_handle().spawn_blocking("grandpa-voter", None, grandpa);

    let rpc = rpc_address(handlers.listen_addresses())?;
    let peer_id = network.local_peer_id();
    let p2p = network
        .listen_addresses()
        .into_iter()
        .map(|address| MultiaddrWithPeerId { multiaddr: without_peer(address), peer_id })
        .collect();
    Ok(Node { rpc, p2p, backend, tasks })
}

/// What sc-cli would make of a command line.
fn configuration(options: &Options, tokio_handle: Handle) -> Result<Configuration, Error> {
    let spec = options.chain.spec_to_run()?;
    let is_dev = spec.chain_type() == ChainType::Development;
    let is_public = !matches!(spec.chain_type(), ChainType::Development | ChainType::Local);
    let dir = options.dir.join(spec.id());
    let network_dir = dir.join("network");
    std::fs::create_dir_all(&network_dir).map_err(|cause| Error::Dir { dir: network_dir.clone(), cause })?;

    let mut network = NetworkConfiguration::new(
        &options.name,
        concat!("datdot/", env!("CARGO_PKG_VERSION")),
        NodeKeyConfig::Ed25519(Secret::File(network_dir.join("secret_ed25519"))),
        Some(network_dir),
    );
    let listens_on = options.chain.listens_on();
    network.listen_addresses = options
        .p2p_port
        .map(|port| [Protocol::from(listens_on), Protocol::Tcp(port)].into_iter().collect())
        .into_iter()
        .collect();
    network.boot_nodes = spec.boot_nodes().iter().chain(&options.bootnodes).cloned().collect();
    network.transport = TransportConfig::Normal { enable_mdns: false, allow_private_ip: !is_public };
    network.allow_non_globals_in_dht = !is_public;

    Ok(Configuration {
        impl_name: "datdot-node".into(),
        impl_version: env!("CARGO_PKG_VERSION").into(),
        role: if options.validator.is_some() { Role::Authority } else { Role::Full },
        tokio_handle,
        transaction_pool: TransactionPoolOptions::default(),
        network,
        // The keys come with each start, they are not left on the disk.
        keystore: KeystoreConfig::InMemory,
        database: DatabaseSource::ParityDb { path: dir.join("db") },
        trie_cache_maximum_size: Some(64 * 1024 * 1024),
        warm_up_trie_cache: None,
        state_pruning: Some(if options.archive {
            PruningMode::ArchiveCanonical
        } else {
            PruningMode::blocks_pruning(STATES_KEPT)
        }),
        blocks_pruning: BlocksPruning::KeepFinalized,
        chain_spec: Box::new(spec),
        executor: ExecutorConfiguration::default(),
        wasm_runtime_overrides: None,
        rpc: rpc_configuration(options.rpc_port),
        prometheus_config: None,
        telemetry_endpoints: None,
        offchain_worker: OffchainWorkerConfig { enabled: false, indexing_enabled: false },
        // Without it, who has no peers makes no blocks.
        force_authoring: is_dev,
        disable_grandpa: false,
        dev_key_seed: None,
        tracing_targets: None,
        tracing_receiver: Default::default(),
        announce_block: true,
        data_path: dir.clone(),
        base_path: BasePath::new(dir),
    })
}

/// One server on loopback, for whatever port, with the methods that are safe to leave open there.
fn rpc_configuration(port: u16) -> RpcConfiguration {
    let endpoint = RpcEndpoint {
        listen_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        batch_config: RpcBatchRequestConfig::Limit(100),
        max_connections: 100,
        max_payload_in_mb: 15,
        max_payload_out_mb: 15,
        max_subscriptions_per_connection: 1024,
        max_buffer_capacity_per_connection: 64,
        rate_limit: None,
        rate_limit_trust_proxy_headers: false,
        rate_limit_whitelisted_ips: Vec::new(),
        cors: Some(ORIGINS.map(String::from).to_vec()),
        rpc_methods: RpcMethods::Safe,
        is_optional: false,
        // Another port than the one asked for would surprise more than an error.
        retry_random_port: false,
    };
    RpcConfiguration {
        max_connections: endpoint.max_connections,
        cors: endpoint.cors.clone(),
        methods: RpcMethods::Safe,
        max_request_size: endpoint.max_payload_in_mb,
        max_response_size: endpoint.max_payload_out_mb,
        id_provider: None,
        max_subs_per_conn: endpoint.max_subscriptions_per_connection,
        port,
        message_buffer_capacity: endpoint.max_buffer_capacity_per_connection,
        batch_config: endpoint.batch_config,
        rate_limit: None,
        rate_limit_whitelisted_ips: Vec::new(),
        rate_limit_trust_proxy_headers: false,
        request_logger_limit: 1024,
        addr: Some(vec![endpoint]),
    }
}

/// Compiles the runtime, and keeps the machine code beside the database for the next start.
fn executor(config: &Configuration) -> WasmExecutor {
    WasmExecutor::builder()
        .with_execution_method(config.executor.wasm_method)
        .with_max_runtime_instances(config.executor.max_runtime_instances)
        .with_runtime_cache_size(config.executor.runtime_cache_size)
        .with_cache_path(config.data_path.join("wasm"))
        .build()
}

/// Puts the keys that `secret` stands for where BABE and GRANDPA look for them.
fn insert_keys(keystore: &KeystorePtr, secret: &str) -> Result<(), sc_service::Error> {
    let refused = |error: sp_keystore::Error| sc_service::Error::Other(error.to_string());
    keystore.sr25519_generate_new(key_types::BABE, Some(secret)).map_err(refused)?;
    keystore.ed25519_generate_new(key_types::GRANDPA, Some(secret)).map_err(refused)?;
    Ok(())
}

/// The methods that know of our accounts: nonces that count the pool, and fees.
fn rpc(client: Arc<Client>, pool: Arc<Pool>) -> Result<RpcModule<()>, jsonrpsee::core::RegisterMethodError> {
    let mut module = RpcModule::new(());
    module.merge(SystemApiServer::<_, AccountId, Nonce>::into_rpc(System::new(client.clone(), pool)))?;
    module.merge(TransactionPayment::new(client).into_rpc())?;
    Ok(module)
}

/// The one address that the RPC server listens on.
fn rpc_address(listens_on: &[sc_network::Multiaddr]) -> Result<SocketAddr, sc_service::Error> {
    let mut parts = listens_on.iter().flat_map(|address| address.iter());
    match (parts.next(), parts.next()) {
        (Some(Protocol::Ip4(ip)), Some(Protocol::Tcp(port))) => Ok(SocketAddr::from((ip, port))),
        _ => Err(sc_service::Error::Other("the RPC server did not start".into())),
    }
}

/// Takes the name of the peer from the end of its address.
fn without_peer(address: sc_network::Multiaddr) -> sc_network::Multiaddr {
    address.into_iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect()
}
