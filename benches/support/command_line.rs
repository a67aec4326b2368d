//! What a bench is started with.

/// The numbers behind the bench's name, in order. `None` where it is not to run: `cargo test` starts benches, too, without
/// the `--bench` that `cargo bench` adds.
pub(crate) fn numbers() -> Option<impl Iterator<Item = u64>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let wanted = args.iter().any(|arg| arg == "--bench");
    wanted.then(|| args.into_iter().filter_map(|arg| arg.parse().ok()))
}
