//! Every op against its plain version, its central differences and PyTorch; the tape's bookkeeping.

mod activate;
mod attention;
mod check;
mod conv;
mod elementwise;
mod fixtures;
mod losses;
mod noise;
mod norm;
mod resample;
mod tape;
