//! Tests on a real Kubernetes cluster. `cargo xtask test --only cluster` starts it and runs them; by hand, on a cluster that is up:
//! `SLUICE_CLUSTER=/var/tmp/sluice-cluster/NAME/state.json cargo test -p sluice-tests --test cluster`.

#[cfg(test)]
mod addresses;
#[cfg(test)]
mod api;
#[cfg(test)]
mod changes;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod load;
#[cfg(test)]
mod pods;
#[cfg(test)]
mod scene;
