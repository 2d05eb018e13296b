//! What people type, turned into values. Each error says what would have been right.

mod decimal;
mod endpoint;
mod feed_key;
mod money;
mod rate;
mod size;
mod span;
mod target;

pub use endpoint::Endpoint;
pub use feed_key::FeedKey;
pub use money::Money;
pub use rate::Rate;
pub use size::Size;
pub use span::Span;
pub use target::Target;
