//! placeholder replaced below
use anyhow::Result;
#[derive(clap::Args)]
pub struct Arguments {}
pub fn main(_arguments: Arguments) -> Result<()> {
    Ok(())
}
