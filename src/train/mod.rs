//! One training loop for every network: learning rate, loss, backward, finite?, clip, AdamW + EMA, log, checkpoint.

mod adamw;
mod checkpoint;
mod metrics;
mod pace;
mod trainer;

pub use adamw::AdamW;
pub use checkpoint::{Checkpoint, load_weights, read_metadata, save_weights};
pub use pace::learning_rate;
pub use trainer::{Finished, StageConfig, Task, Trainer};
