//! The clock and the random numbers of a thread that belongs to a simulation.
//!
//! The test program defines `clock_gettime` and `getrandom` itself, and so comes before the C library: the standard library and
//! every crate that goes by them get the simulated ones, without knowing, wherever they ask. Other threads get those of the
//! kernel.

use std::cell::Cell;

thread_local! {
    /// Nanoseconds since the simulation began.
    static TIME: Cell<Option<u64>> = const { Cell::new(None) };
    /// The state of splitmix64.
    static RANDOM: Cell<Option<u64>> = const { Cell::new(None) };
}

/// When simulations begin, in seconds of any clock: far from the times of the real files that they are about, so that none of
/// them looks as if it were being changed right now.
const BEGINNING: u64 = 4_000_000_000;

/// Sets this thread's clock, in nanoseconds since the simulation began.
pub fn set_time(nanoseconds: u64) {
    TIME.set(Some(nanoseconds));
}

/// This thread's random numbers follow from `seed` from now on.
pub fn set_seed(seed: u64) {
    RANDOM.set(Some(seed));
}

/// The next of a sequence of numbers (splitmix64).
pub fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What time it is, for whoever asks the C library.
///
/// # Safety
///
/// `time` is null or points to memory for a `timespec`, as the C library has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    match TIME.try_with(Cell::get).ok().flatten() {
        Some(since) if !time.is_null() => {
            // SAFETY: the caller's promise, see above.
            unsafe {
                (*time).tv_sec = (BEGINNING + since / 1_000_000_000) as libc::time_t;
                (*time).tv_nsec = (since % 1_000_000_000) as libc::c_long;
            }
            0
        }
        // SAFETY: the kernel checks both itself.
        _ => unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int },
    }
}

/// Random bytes, for whoever asks the C library.
///
/// # Safety
///
/// `buffer` points to memory for `length` bytes, as the C library has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(
    buffer: *mut libc::c_void,
    length: libc::size_t,
    flags: libc::c_uint,
) -> libc::ssize_t {
    let Some(mut state) = RANDOM.try_with(Cell::get).ok().flatten() else {
        // SAFETY: the kernel checks all of them itself.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as libc::ssize_t };
    };
    let bytes = buffer.cast::<u8>();
    for at in 0..length {
        // SAFETY: `at` is below the length that the caller promised.
        unsafe { bytes.add(at).write((next_random(&mut state) >> 32) as u8) };
    }
    RANDOM.set(Some(state));
    length as libc::ssize_t
}

#[test]
fn a_simulated_thread_has_its_own_clock_and_random_numbers() {
    let other = std::thread::spawn(|| {
        set_time(5_000_000_000);
        set_seed(7);
        let (now, wall) = (std::time::Instant::now(), std::time::SystemTime::now());
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).unwrap();
        set_time(6_500_000_000);
        assert_eq!(now.elapsed(), std::time::Duration::from_millis(1_500));
        let since = wall.duration_since(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(since.as_secs(), BEGINNING + 5);
        set_seed(7);
        let mut again = [0; 8];
        getrandom::fill(&mut again).unwrap();
        assert_eq!(bytes, again);
        bytes
    });
    let simulated = other.join().unwrap();
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    assert_ne!(bytes, simulated);
    let year = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    assert!(year.unwrap().as_secs() < BEGINNING);
}
