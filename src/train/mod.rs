//! One training loop for every network: learning rate, loss, backward, finite?, clip, AdamW + EMA, log, checkpoint.

mod adamw;
mod batches;
mod checkpoint;
mod metrics;
mod pace;
mod trainer;

pub use adamw::{AdamW, StepSizes};
pub use batches::Batches;
pub use checkpoint::{Checkpoint, FORMAT_VERSION, load_weights, read_metadata, save_weights};
pub use pace::learning_rate;
pub use trainer::{Finished, Intervals, StageConfig, Task, Trainer};
