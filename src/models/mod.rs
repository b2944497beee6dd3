//! Networks made of layers: the autoencoder, the denoising UNet and the students.

pub mod students;
pub mod unet;
pub mod vae;
