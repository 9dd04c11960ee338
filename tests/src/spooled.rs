//! Bodies that can be told from each other and from torn ones.

use std::time::{SystemTime, UNIX_EPOCH};

/// A body that nobody else has, of up to 8 KiB.
#[must_use]
pub fn body() -> Vec<u8> {
    use std::hash::{BuildHasher, RandomState};
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = RandomState::new().hash_one(now).to_be_bytes();
    let [first, second, ..] = seed;
    let length = usize::from(first).saturating_mul(usize::from(second % 32));
    seed.iter().copied().cycle().take(length.saturating_add(seed.len())).collect()
}

/// What tells bodies from each other.
#[must_use]
pub fn digest(body: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
