//! Developer commands of trainyard; not shipped.

fn main() {}
