//! Limits how many requests wait for arrivals, per address and in total, so that other requests
//! still get through. Over HTTP/1.1 a wait holds its connection, which is not closed to make room
//! for others: waits take at most fifteen of sixteen connections. Over HTTP/2 a connection may have
//! many, and waits take at most half of the streams that all connections may have.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::addresses::{Address, try_add};

/// How many requests may wait over HTTP/2, of all addresses and of one. It is half of what
/// [`StreamBudget`](crate::connection::http2::StreamBudget) allows.
const HTTP2_PLACES: usize = 4_096;
const HTTP2_PLACES_PER_ADDRESS: usize = 640;

/// The requests that wait for arrivals. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Parking(Arc<ParkingState>);

#[derive(Debug, Default)]
struct ParkingState {
    places: AtomicUsize,
    places_per_address: AtomicUsize,
    taken: AtomicUsize,
    taken_over_http2: AtomicUsize,
}

/// A place for one waiting request, until it is dropped.
#[derive(Debug)]
pub(crate) struct ParkingPlace {
    parking: Parking,
    is_http2: bool,
    /// `None` if the address is exempt.
    address: Option<Address>,
}

/// No place is free. The number is the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoPlace(pub(crate) usize);

impl Parking {
    /// The places of a server with these limits of connections.
    pub(crate) fn new(connections_max: usize, connections_per_address_max: usize) -> Self {
        let parking = Self(Arc::default());
        parking.set_limits(connections_max, connections_per_address_max);
        parking
    }

    /// Applies other limits of connections. Requests that wait already stay.
    pub(crate) fn set_limits(&self, connections_max: usize, connections_per_address_max: usize) {
        let left_for_others = connections_max.div_ceil(16);
        let places = connections_max.saturating_sub(left_for_others).max(1);
        self.0.places.store(places, Ordering::Relaxed);
        self.0.places_per_address.store(connections_per_address_max, Ordering::Relaxed);
    }

    /// The number of waiting requests.
    pub(crate) fn count(&self) -> usize {
        self.0.taken.load(Ordering::Relaxed)
    }

    /// Takes a place for a request of this address.
    ///
    /// # Errors
    /// [`NoPlace`] if all are taken, or all of this address.
    pub(crate) fn enter(&self, address: Option<&Address>, is_http2: bool) -> Result<ParkingPlace, NoPlace> {
        let ParkingState { places, places_per_address, taken, taken_over_http2 } = &*self.0;
        let [places, of_address] = [places, places_per_address].map(|places| places.load(Ordering::Relaxed));
        if !try_add(taken, 1, places) {
            return Err(NoPlace(places));
        }
        let mut place = ParkingPlace { parking: self.clone(), is_http2: false, address: None };
        if is_http2 {
            if !try_add(taken_over_http2, 1, HTTP2_PLACES) {
                return Err(NoPlace(HTTP2_PLACES));
            }
            place.is_http2 = true;
        }
        if let Some(address) = address {
            let bound = if is_http2 { HTTP2_PLACES_PER_ADDRESS } else { usize::MAX };
            let places = bound.min(of_address);
            if !try_add(&address.usage().parked, 1, places) {
                return Err(NoPlace(places));
            }
            place.address = Some(address.clone());
        }
        Ok(place)
    }
}

impl Drop for ParkingPlace {
    fn drop(&mut self) {
        let ParkingState { taken, taken_over_http2, .. } = &*self.parking.0;
        taken.fetch_sub(1, Ordering::Relaxed);
        if self.is_http2 {
            taken_over_http2.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(address) = &self.address {
            address.usage().parked.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::addresses::AddressBook;

    #[test]
    fn an_address_takes_its_own_places_and_all_share_the_rest() {
        let (parking, book) = (Parking::new(6, 2), AddressBook::new());
        let [one, other] = [1, 2].map(|last| book.enter([192, 0, 2, last].into()));
        let mut places: Vec<_> = (0..2).map(|_| parking.enter(Some(&one), false).unwrap()).collect();
        assert_eq!(parking.enter(Some(&one), false).unwrap_err(), NoPlace(2));
        places.extend((0..2).map(|_| parking.enter(Some(&other), false).unwrap()));
        assert_eq!(parking.count(), 4, "a refusal takes nothing");
        places.push(parking.enter(None, false).unwrap());
        assert_eq!(parking.enter(None, false).unwrap_err(), NoPlace(5));
        drop(places);
        assert_eq!((parking.count(), one.usage().parked.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn waits_leave_connections_for_other_requests() {
        for (connections, places) in [(1, 1), (2, 1), (16, 15), (17, 15), (10_000, 9375)] {
            let parking = Parking::new(connections, connections);
            let taken: Vec<_> = std::iter::from_fn(|| parking.enter(None, false).ok()).collect();
            assert_eq!(taken.len(), places, "of {connections}");
        }
    }

    #[test]
    fn other_limits_apply_to_later_requests() {
        let parking = Parking::new(6, 6);
        let places: Vec<_> = std::iter::from_fn(|| parking.enter(None, false).ok()).collect();
        parking.set_limits(2, 2);
        assert_eq!((places.len(), parking.enter(None, false).unwrap_err()), (5, NoPlace(1)));
        parking.set_limits(8, 8);
        assert!(parking.enter(None, false).is_ok());
    }

    #[test]
    fn over_http_2_half_of_the_streams_stay_free() {
        let (parking, book) = (Parking::new(10_000, 1_000), AddressBook::new());
        let one = book.enter([192, 0, 2, 1].into());
        let mut places: Vec<_> = (0..640).map(|_| parking.enter(Some(&one), true).unwrap()).collect();
        assert_eq!(parking.enter(Some(&one), true).unwrap_err(), NoPlace(640));
        places.extend((640..4096).map(|_| parking.enter(None, true).unwrap()));
        assert_eq!(parking.enter(None, true).unwrap_err(), NoPlace(4096));
        places.push(parking.enter(None, false).unwrap());
        assert_eq!(parking.count(), 4097, "a refusal takes nothing");
        drop(places);
        places = vec![parking.enter(Some(&one), true).unwrap()];
        assert_eq!(parking.count(), places.len());
    }
}
