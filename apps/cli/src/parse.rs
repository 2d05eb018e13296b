//! What people type, turned into values. Each error says what would have been right.

mod decimal;
mod endpoint;
mod money;
mod rate;
mod size;
mod span;
mod target;

pub use datdot_hypercore::FeedKey;
pub use endpoint::Endpoint;
pub use money::Money;
pub use rate::Rate;
pub use size::Size;
pub use span::Span;
pub use target::Target;
