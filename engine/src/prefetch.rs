//! Asks the processor to bring memory near before it is read, so that a command need not wait for it.

#![expect(
    unsafe_code,
    reason = "the processor's prefetch has no safe form; it changes nothing and never faults, whatever the address"
)]

/// Asks for the first cache line of a value.
#[inline(always)]
pub(crate) fn ask_for<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads and writes nothing that a program can see, and this address is a value's.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
