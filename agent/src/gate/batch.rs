//! Reading a hash map in a few system calls.
//!
//! The library makes two for each element, which is a twentieth of a core where somebody
//! watches a map that a flood keeps full. BPF_MAP_LOOKUP_BATCH is cb4d03ab499d ("bpf: Add
//! generic support for lookup batch op"), Linux 5.6.
//!
//! What the kernel refuses is an error of the caller's; the map stays as it is.

use std::{
    io, mem,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    ptr,
};

use aya::{Pod, maps::MapData};
use aya_obj::generated::{bpf_attr, bpf_attr__bindgen_ty_3, bpf_cmd};

use crate::gate::Error;

/// Elements that a call reads at most. It reads whole buckets, which have a few each.
const ELEMENTS: usize = 4096;

/// All elements of a hash map. What is written meanwhile may be among them or not.
pub(crate) fn elements<K, V>(map: &MapData) -> Result<Vec<(K, V)>, Error>
where
    K: Pod + Default,
    V: Pod + Default,
{
    let failed = |error| Error::bpf("reading a map", error);
    let info = map.info().map_err(|error| Error::bpf("asking about a map", error))?;
    if (info.key_size() as usize, info.value_size() as usize) != (size_of::<K>(), size_of::<V>()) {
        return Err(failed(io::ErrorKind::InvalidData.into()));
    }
    let (mut keys, mut values) = (vec![K::default(); ELEMENTS], vec![V::default(); ELEMENTS]);
    let mut elements = Vec::new();
    let mut bucket = None;
    loop {
        // SAFETY: the elements of the map have the sizes of these types, as was checked.
        let batch = unsafe { lookup(map.fd().as_fd(), bucket, &mut keys, &mut values) };
        let (count, next) = batch.map_err(failed)?;
        elements.extend(keys.iter().copied().zip(values.iter().copied()).take(count));
        if next.is_none() {
            return Ok(elements);
        }
        bucket = next;
    }
}

/// Reads elements from a bucket on, or from the first one. Returns their number and the bucket
/// to go on from, if there are more.
///
/// # Safety
///
/// The map's keys and values have the sizes of these types.
unsafe fn lookup<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    bucket: Option<u32>,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<(usize, Option<u32>)> {
    let mut next = 0u32;
    // SAFETY: zeros are a valid request, and the kernel wants them behind its end.
    let mut request: bpf_attr = unsafe { mem::zeroed() };
    request.batch = bpf_attr__bindgen_ty_3 {
        in_batch: bucket.as_ref().map_or(0, |bucket| ptr::from_ref(bucket) as u64),
        out_batch: &raw mut next as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: u32::try_from(keys.len().min(values.len())).unwrap_or(u32::MAX),
        map_fd: map.as_raw_fd().cast_unsigned(),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: what the request points to outlives the call, and has room for `count` elements
    // of the map, any bytes of which are keys and values.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            bpf_cmd::BPF_MAP_LOOKUP_BATCH,
            &raw mut request,
            size_of::<bpf_attr>(),
        )
    };
    let error = io::Error::last_os_error();
    // SAFETY: the kernel has written to this part of it.
    let count = unsafe { request.batch.count } as usize;
    match (result, error.raw_os_error()) {
        (0, _) => Ok((count, Some(next))),
        (_, Some(libc::ENOENT)) => Ok((count, None)),
        _ => Err(error),
    }
}
