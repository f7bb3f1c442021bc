//! Asks the processor to bring memory near before it is read, so that a floor does not wait where what it lies under does not.

#![expect(
    unsafe_code,
    reason = "the processor's prefetch has no safe form; it changes nothing and never faults, whatever the address"
)]

/// Asks for the first cache line of what lies at a place, if anything does.
#[inline(always)]
pub(crate) fn ask_for<T>(values: &[T], at: usize) {
    let Some(value) = values.get(at) else { return };
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads and writes nothing that a program can see, and this address is a value's.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
