//! Chance, to keep those who start together from asking together.

/// A number from 0 up to 1.
pub(crate) fn random() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness the middle will do: it only spreads requests.
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return 0.5;
    }
    f64::from(u32::from_le_bytes(bytes)) / 4_294_967_296.0
}
