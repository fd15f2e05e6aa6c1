//! Environments made by the real uv, against a local folder of tiny wheels: no test needs the internet.

mod brought;
mod caches;
pub mod conda;
mod difference;
mod disk;
pub mod fixture;
mod images;
mod lists;
mod locks;
mod options;
mod pip;
mod torch;
