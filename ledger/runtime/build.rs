//! Builds this crate a second time, as the wasm blob that a chain carries in its state.

fn main() {
    #[cfg(feature = "std")]
    substrate_wasm_builder::WasmBuilder::build_using_defaults();
}
