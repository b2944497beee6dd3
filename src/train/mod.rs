//! One training loop for every network: learning rate, loss, backward, finite?, clip, AdamW + EMA, log, checkpoint.

mod adamw;
mod batches;
mod checkpoint;
mod metrics;
mod pace;
mod tensorboard;
mod trainer;
mod weights;

pub use adamw::{AdamW, Figures, StepSizes};
pub use batches::Batches;
pub use checkpoint::{Best, Checkpoint};
pub use pace::learning_rate;
pub use trainer::{Finished, Intervals, Keep, MOST_PENDING, StageConfig, Task, Trainer, Validation};
pub use weights::{FORMAT_VERSION, encode_weights, load_weights, read_metadata, save_weights};
