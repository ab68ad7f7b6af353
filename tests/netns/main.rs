//! Tests on real namespaces: root, and the programs in the kernel. `cargo xtask test` runs them.

#[cfg(test)]
mod lab;
#[cfg(test)]
mod topology;
