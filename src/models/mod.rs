//! Networks made of layers: the autoencoder, the denoising UNet, the students, and Inception to compare images by.

pub mod inception;
pub mod students;
pub mod unet;
pub mod vae;
