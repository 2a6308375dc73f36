//! What may be served together. Which place answers is tested through a server
//! (`tests/grpc/places.rs`).

use super::*;
use crate::node::clock::SystemClock;
use crate::note::SignerKey;
use crate::store::disk::MemoryDisk;
use crate::store::{StoreOptions, create};

fn name(text: &str) -> OriginName {
    OriginName::new(text).unwrap()
}

fn place(role: StoreRole, origin: &str) -> Place {
    let signer = SignerKey::from_seed(name(origin), &[7; 32]);
    let (disk, opening) = (MemoryDisk::new(), Opening::new());
    create(&disk, role, signer.verifier()).unwrap();
    let mut options = StoreOptions::new(Arc::new(SystemClock));
    options.reserve_bytes = 0;
    options.listener = Some(opening.listener());
    let signer = (role == StoreRole::Own).then_some(signer);
    let opened = Store::open(Arc::new(disk), options, signer).unwrap();
    opening.with(opened.store)
}

fn own(origin: &str) -> Place {
    place(StoreRole::Own, origin)
}

fn mirror(origin: &str) -> Place {
    place(StoreRole::Mirror, origin)
}

#[test]
fn what_cannot_be_served_together_is_refused() {
    let refused = |places| Places::new(places).unwrap_err();
    assert_eq!(refused(Vec::new()), PlacesError::Nothing);
    let (first, second) = (name("a"), name("b"));
    assert_eq!(
        refused(vec![own("b"), mirror("c"), own("a")]),
        PlacesError::TwoOwn { first, second }
    );
    for pair in [[own("a"), mirror("a")], [mirror("a"), mirror("a")]] {
        let origin = name("a");
        let places = pair.into_iter().chain([mirror("b")]).collect();
        assert_eq!(refused(places), PlacesError::SameOrigin { origin });
    }
    let many = |count: usize| (0..count).map(|n| mirror(&format!("m{n}"))).collect();
    let got = PLACES_MAX + 1;
    assert_eq!(refused(many(got)), PlacesError::TooMany { got });
    Places::new(many(PLACES_MAX)).unwrap();
}

#[test]
fn the_own_store_is_first_and_mirrors_follow_by_name() {
    let order = |places: Vec<Place>| {
        let places = Places::new(places).unwrap();
        let numbers = places.all().iter().map(|place| place.number());
        assert!(numbers.eq(0..places.all().len()));
        let has_own = places.own().is_some();
        let names = places.all().iter().map(|place| place.origin().to_string());
        let names: Vec<String> = names.collect();
        (has_own, names.join(" "))
    };
    let all = || vec![mirror("c"), own("b"), mirror("a")];
    assert_eq!(order(all()), (true, "b a c".into()));
    assert_eq!(order(vec![mirror("c"), mirror("a")]), (false, "a c".into()));
    assert_eq!(order(vec![own("a")]), (true, "a".into()));
}

#[test]
fn a_message_names_so_many_origins_and_counts_the_rest() {
    let of = |count: usize| {
        let places = (0..count).map(|n| mirror(&format!("m{n:02}")));
        names(Places::new(places.collect()).unwrap().all())
    };
    assert_eq!(of(2), "m00, m01");
    assert!(of(ORIGINS_NAMED_MAX).ends_with(", m07"));
    assert!(of(ORIGINS_NAMED_MAX + 3).ends_with(", m07 and 3 more"));
}
