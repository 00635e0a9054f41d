//! Which connections close for others, and which count apart.

use super::*;
use crate::limits::addresses::AddressBook;

fn yes(opened: Opened) -> OpenConnection {
    match opened {
        Opened::Yes(connection) => connection,
        Opened::AddressIsFull => panic!("the address is full"),
        Opened::Full(_) => panic!("the table is full"),
    }
}

#[test]
fn the_connection_that_has_been_quiet_longest_closes() {
    let start = monotonic::now();
    let connections = OpenConnections::new(3, 3, start);
    let open = |second| connections.open(None, start + Duration::from_secs(second));
    let held: Vec<_> = (0..3).map(|second| yes(open(second))).collect();
    held[0].set_busy();
    let newcomer = yes(open(3));
    assert_eq!([0, 1, 2].map(|at| held[at].is_close_requested()), [false, true, false]);
    newcomer.set_busy();
    held[2].set_busy();
    assert!(matches!(open(4), Opened::Full(_)), "one is asked already, the others are busy");
    drop(held);
    assert_eq!(connections.count(), 1);
}

#[test]
fn a_full_address_closes_its_own_connections_only() {
    let start = monotonic::now();
    let (book, connections) = (AddressBook::new(), OpenConnections::new(10, 2, start));
    let hog = book.enter([192, 0, 2, 1].into());
    let other = yes(connections.open(Some(book.enter([192, 0, 2, 2].into())), start));
    let mut held: Vec<_> = (0..2).map(|_| yes(connections.open(Some(hog.clone()), start))).collect();
    held.push(yes(connections.open(Some(hog.clone()), start)));
    assert_eq!(held.iter().filter(|connection| connection.is_close_requested()).count(), 1);
    assert!(!other.is_close_requested());
    held.iter().for_each(OpenConnection::set_busy);
    assert!(matches!(connections.open(Some(hog.clone()), start), Opened::AddressIsFull));
    let proxied = yes(connections.open(None, start));
    assert!(!proxied.set_address(hog.clone()));
    assert!(proxied.set_address(book.enter([192, 0, 2, 3].into())));
    drop(held);
    assert_eq!(hog.usage().connections.load(Ordering::Relaxed), 0);
}

#[test]
fn lower_limits_close_the_connections_that_have_been_quiet_longest() {
    let start = monotonic::now();
    let (book, connections) = (AddressBook::new(), OpenConnections::new(10, 5, start));
    let [hog, other] = [1, 2].map(|last| book.enter([192, 0, 2, last].into()));
    let open = |address: &Address, second| {
        yes(connections.open(Some(address.clone()), start + Duration::from_secs(second)))
    };
    let held = [&other, &hog, &hog, &hog, &other].map(|address| open(address, 0));
    let asked = || held.iter().map(OpenConnection::is_close_requested).collect::<Vec<_>>();
    for (second, connection) in (1..).zip(&held) {
        connection.set_quiet(start + Duration::from_secs(second));
    }
    held[1].set_busy();
    connections.set_limits(10, 2);
    assert_eq!(asked(), [false, false, true, false, false], "of the full address alone");
    connections.set_limits(3, 2);
    assert_eq!(asked(), [true, false, true, false, false], "busy ones stay");
    assert!(matches!(connections.open(None, start), Opened::Yes(_)), "for which another one closes");
    connections.set_limits(100, 100);
    assert!(matches!(connections.open(Some(hog), start), Opened::Yes(_)));
}

#[test]
fn a_connection_without_a_known_client_closes_none_of_a_client() {
    let start = monotonic::now();
    let connections = OpenConnections::new(1, 1, start);
    let client = yes(connections.open(None, start));
    let unnamed = |second| connections.open_unnamed(start + Duration::from_secs(second));
    let held: Vec<_> = (0..8).map(|second| unnamed(second).unwrap()).collect();
    assert!(held.iter().all(|connection| !connection.is_close_requested()));
    let newest = unnamed(8).unwrap();
    assert!(held[0].is_close_requested() && !held[1].is_close_requested());
    assert!(!client.is_close_requested());
    client.set_busy();
    assert!(!newest.try_take_place(start));
    client.set_quiet(start);
    assert!(newest.try_take_place(start) && client.is_close_requested());
    assert!(newest.try_take_place(start), "it has one already");
    assert!((0..7).all(|_| unnamed(9).is_some()), "one for each that is not asked yet");
    assert!(unnamed(9).is_none());
    drop((held, client, newest));
    assert_eq!((connections.count(), connections.slots().unnamed), (0, 0));
}
