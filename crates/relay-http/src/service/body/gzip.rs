//! Decompresses a body with `Content-Encoding: gzip`.

use std::io::Read as _;

use flate2::read::MultiGzDecoder;

use super::growth::BodyBuffer;
use crate::api::error::ApiError;
#[cfg(any(test, feature = "fuzzing"))]
use crate::api::format::Format;

/// Decompresses `packed` into `unpacked`.
///
/// # Errors
/// `too_large` if the result exceeds `bytes_max`; also if `packed` is not gzip, or the budget has
/// no space.
pub(super) fn decompress(
    packed: &[u8],
    mut unpacked: BodyBuffer,
    bytes_max: usize,
    too_large: ApiError,
) -> Result<BodyBuffer, ApiError> {
    let mut decoder = MultiGzDecoder::new(packed);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let len =
            decoder.read(&mut buffer).map_err(|_| ApiError::BadRequest("the body is not valid gzip"))?;
        let chunk = buffer.get(..len).unwrap_or_default();
        if chunk.is_empty() {
            return Ok(unpacked);
        }
        if unpacked.bytes().len() + chunk.len() > bytes_max {
            return Err(too_large);
        }
        unpacked.append(chunk)?;
    }
}

/// The decompressed bytes, unless `packed` is not gzip or the result exceeds `bytes_max`.
#[cfg(feature = "fuzzing")]
pub(crate) fn unpack(packed: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let budget = crate::limits::memory_budget::Budget::new(usize::MAX);
    let unpacked = BodyBuffer::new(Format::Json, budget.share(None));
    Some(decompress(packed, unpacked, bytes_max, ApiError::NotFound).ok()?.bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::limits::memory_budget::Budget;

    #[test]
    fn the_decompressed_size_counts() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&[b' '; 100_000]).unwrap();
        let gzip = encoder.finish().unwrap();
        let unpack = |budget: &Budget| {
            let _packed = budget.take(None, gzip.len()).unwrap();
            let unpacked = BodyBuffer::new(Format::Json, budget.share(None));
            decompress(&gzip, unpacked, 200_000, ApiError::NotFound).map(|unpacked| unpacked.bytes().len())
        };
        assert_eq!(unpack(&Budget::new(1_000_000)).unwrap(), 100_000);
        assert!(unpack(&Budget::new(100_000)).is_err());
    }
}
