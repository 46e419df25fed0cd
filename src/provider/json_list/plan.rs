//! The fields of an item that a definition points at, as a tree, so that an item is read in one
//! pass. Pure.

use crate::provider::json_list::definition::{Definition, Place, TextsPlace, TimePlace};
use crate::provider::json_list::pointer::{Segment, index};

/// The fields to read from an item, and their slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The item, or the inner item of a nested list.
    pub(super) inner: Tree,
    /// The outer item of a nested list.
    pub(super) outer: Tree,
    pub(super) id: Slot,
    pub(super) label: Option<Slot>,
    pub(super) expires_at: Option<Slot>,
    pub(super) created_at: Option<Slot>,
    pub(super) updated_at: Option<Slot>,
    pub(super) last_used_at: Option<Slot>,
    pub(super) scopes: Option<Slot>,
    pub(super) ip_allow_list: Option<Slot>,
    /// In the order of the conditions.
    pub(super) disabled: Vec<Slot>,
}

/// Where a value is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) is_outer: bool,
    pub(super) index: usize,
}

/// The fields of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tree {
    pub(super) root: Node,
    /// The number of slots that it fills.
    pub(super) slots: usize,
}

/// A value to read, or one on the path to others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// The slot of its own value, if it is wanted.
    pub(super) slot: Option<usize>,
    /// Set if the value is a list of texts, or an object with texts as keys: the type of each
    /// element.
    pub(super) element: Option<Box<Node>>,
    /// What to read from every element.
    pub(super) every: Option<Box<Node>>,
    /// What to read from single elements.
    pub(super) children: Vec<Child>,
}

/// A field of an object, or an element of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Child {
    pub(super) name: Box<str>,
    /// The name as an index of a list.
    pub(super) index: Option<usize>,
    pub(super) node: Node,
}

impl Plan {
    pub(super) fn new(definition: &Definition) -> Self {
        let mut plan = Self::default();
        let facts = &definition.facts;
        let mut one = |place: &Place| plan.slot(place, false);
        let id = one(&facts.id);
        let label = facts.label.as_ref().map(&mut one);
        let mut time = |time: &Option<TimePlace>| Some(one(&time.as_ref()?.place));
        let [expires_at, created_at, updated_at, last_used_at] = [
            &facts.expires_at,
            &facts.created_at,
            &facts.updated_at,
            &facts.last_used_at,
        ]
        .map(&mut time);
        let mut texts = |texts: &Option<TextsPlace>| Some(plan.slot(&texts.as_ref()?.place, true));
        let [scopes, ip_allow_list] = [&facts.scopes, &facts.ip_allow_list].map(&mut texts);
        let conditions = facts.disabled.iter();
        plan.disabled = conditions
            .map(|condition| plan.slot(&condition.place, false))
            .collect();
        Self {
            id,
            label,
            expires_at,
            created_at,
            updated_at,
            last_used_at,
            scopes,
            ip_allow_list,
            ..plan
        }
    }

    /// All slots, in the order of `FactPlaces::all`.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        let facts = [
            self.label,
            self.expires_at,
            self.created_at,
            self.updated_at,
            self.last_used_at,
            self.scopes,
            self.ip_allow_list,
        ];
        let facts = facts.into_iter().flatten();
        let disabled = self.disabled.iter().copied();
        [self.id].into_iter().chain(facts).chain(disabled)
    }

    fn slot(&mut self, place: &Place, is_texts: bool) -> Slot {
        let is_outer = place.is_outer;
        let tree = if is_outer {
            &mut self.outer
        } else {
            &mut self.inner
        };
        let index = tree
            .root
            .insert(place.pointer.segments(), is_texts, &mut tree.slots);
        Slot { is_outer, index }
    }
}

impl Node {
    /// The slot of the value at the end of these steps; a new one if it has none.
    fn insert(&mut self, segments: &[Segment], is_texts: bool, slots: &mut usize) -> usize {
        match segments.split_first() {
            None => {
                let slot = *self.slot.get_or_insert_with(|| {
                    *slots += 1;
                    *slots - 1
                });
                if is_texts {
                    self.element = Some(Box::new(Self {
                        slot: Some(slot),
                        ..Self::default()
                    }));
                }
                slot
            }
            Some((Segment::Every, rest)) => {
                let every = self.every.get_or_insert_default();
                every.insert(rest, is_texts, slots)
            }
            Some((Segment::Name(name), rest)) => {
                let known = self.children.iter().position(|child| child.name == *name);
                let at = known.unwrap_or_else(|| {
                    self.children.push(Child {
                        name: name.clone(),
                        index: index(name),
                        node: Self::default(),
                    });
                    self.children.len() - 1
                });
                match self.children.get_mut(at) {
                    Some(child) => child.node.insert(rest, is_texts, slots),
                    None => 0,
                }
            }
        }
    }

    /// Calls `f` with its slot and each one below.
    pub(super) fn each_slot(&self, f: &mut dyn FnMut(usize)) {
        self.slot.into_iter().for_each(&mut *f);
        self.each_slot_below(f);
    }

    /// Calls `f` with each slot below its own.
    pub(super) fn each_slot_below(&self, f: &mut dyn FnMut(usize)) {
        let children = self.children.iter().map(|child| &child.node);
        for node in children.chain(self.every.as_deref()) {
            node.each_slot(f);
        }
    }
}
