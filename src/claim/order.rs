//! Which offered task goes first.
