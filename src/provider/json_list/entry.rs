//! Reads only the wanted fields of an item, in one pass. Pure.
//!
//! A field with an unexpected type becomes [`Captured::Other`] and is skipped. Fields that the
//! definition does not point at are never copied: they may be secrets.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::provider::json_list::plan::Node;

/// Most scopes, and most allow list entries, per key: prevents one hostile key from filling memory.
const TEXTS_MAX: usize = 10_000;

/// A value that was read.
#[derive(Default)]
pub(super) enum Captured<'a> {
    /// The field is missing.
    #[default]
    Absent,
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(Cow<'a, str>),
    /// The elements of a list, `None` for one that is not text.
    Texts(Vec<Option<Cow<'a, str>>>),
    /// The keys of an object.
    Keys(Vec<Option<Cow<'a, str>>>),
    /// A list or an object where a scalar is expected.
    Other,
    /// A value on the path to the field is neither a list nor an object.
    Unreachable,
}

/// A field may be a secret that the definition points at by mistake, so none of them is printed.
impl fmt::Debug for Captured<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Captured(…)")
    }
}

/// The values of an item, by slot.
#[derive(Debug, Default)]
pub(super) struct Values<'a> {
    captured: Vec<Captured<'a>>,
    /// It is neither object nor list, or a field occurs twice.
    pub(super) is_misshapen: bool,
}

impl<'a> Values<'a> {
    /// Clears the values of the last item.
    pub(super) fn reset(&mut self, slots: usize) {
        self.captured.clear();
        self.captured.resize_with(slots, Captured::default);
        self.is_misshapen = false;
    }

    pub(super) fn get(&self, slot: usize) -> &Captured<'a> {
        self.captured.get(slot).unwrap_or(&Captured::Absent)
    }

    fn put(&mut self, slot: usize, value: Captured<'a>, is_one_of_many: bool) {
        let Some(captured) = self.captured.get_mut(slot) else {
            return;
        };
        if !is_one_of_many {
            *captured = value;
            return;
        }
        if matches!(captured, Captured::Absent) {
            *captured = Captured::Texts(Vec::new());
        }
        let Captured::Texts(texts) = captured else {
            *captured = Captured::Other;
            return;
        };
        match value {
            Captured::Text(text) => texts.push(Some(text)),
            Captured::Texts(more) | Captured::Keys(more) => texts.extend(more),
            Captured::Absent => {}
            Captured::Null
            | Captured::Bool(_)
            | Captured::Integer(_)
            | Captured::Float(_)
            | Captured::Other
            | Captured::Unreachable => texts.push(None),
        }
        if texts.len() > TEXTS_MAX {
            *captured = Captured::Other;
        }
    }
}

/// Reads a value into the slots of `node` and of the nodes below it.
pub(super) struct Walk<'s, 'a> {
    pub(super) node: &'s Node,
    pub(super) values: &'s mut Values<'a>,
    /// Whether the value is the item itself.
    pub(super) is_item: bool,
    /// Whether the value is one of several for the same slots.
    pub(super) is_one_of_many: bool,
}

impl<'s, 'a> Walk<'s, 'a> {
    pub(super) fn item(node: &'s Node, values: &'s mut Values<'a>) -> Self {
        Self {
            node,
            values,
            is_item: true,
            is_one_of_many: false,
        }
    }

    fn below<'t>(&'t mut self, node: &'t Node, is_one_of_many: bool) -> Walk<'t, 'a> {
        Walk {
            node,
            values: &mut *self.values,
            is_item: false,
            is_one_of_many: self.is_one_of_many || is_one_of_many,
        }
    }

    fn put(&mut self, value: Captured<'a>) {
        if let Some(slot) = self.node.slot {
            self.values.put(slot, value, self.is_one_of_many);
        }
    }

    fn scalar(mut self, value: Captured<'a>) {
        self.values.is_misshapen |= self.is_item;
        // Null on the path to a field is a common way to say that the field is missing.
        if !matches!(value, Captured::Null) {
            let node = self.node;
            self.lead_nowhere(|f| node.each_slot_below(f));
        }
        self.put(value);
    }

    /// Marks wanted fields as unreachable: those with the slots that `each` names.
    fn lead_nowhere(&mut self, each: impl FnOnce(&mut dyn FnMut(usize))) {
        let (values, is_one_of_many) = (&mut *self.values, self.is_one_of_many);
        each(&mut |slot| values.put(slot, Captured::Unreachable, is_one_of_many));
    }
}

impl<'a> DeserializeSeed<'a> for Walk<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Walk<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.scalar(Captured::Null);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.scalar(Captured::Bool(value));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.scalar(Captured::Integer(value.into()));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.scalar(Captured::Integer(value.into()));
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.scalar(Captured::Float(value));
        Ok(())
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<(), E> {
        self.scalar(Captured::Text(Cow::Borrowed(text)));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.scalar(Captured::Text(Cow::Owned(text.to_owned())));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let node = self.node;
        if let Some(every) = node.every.as_deref().or(node.element.as_deref()) {
            // An empty list counts as a list of texts.
            let is_texts = node.every.is_none();
            self.put(if is_texts {
                Captured::Texts(Vec::new())
            } else {
                Captured::Other
            });
            while seq.next_element_seed(self.below(every, true))?.is_some() {}
            return Ok(());
        }
        let has_elements = node.children.iter().any(|child| child.index.is_some());
        self.values.is_misshapen |= self.is_item && !has_elements;
        self.put(Captured::Other);
        for child in node.children.iter().filter(|child| child.index.is_none()) {
            self.lead_nowhere(|f| child.node.each_slot(f));
        }
        for at in 0.. {
            let mut children = node.children.iter();
            let is_read = match children.find(|child| child.index == Some(at)) {
                Some(child) => {
                    let element = seq.next_element_seed(self.below(&child.node, false))?;
                    element.is_some()
                }
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !is_read {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        let node = self.node;
        let mut keys = (node.element.is_some() && node.every.is_none()).then(Vec::new);
        let mut seen = 0_u64;
        while let Some(child) = map.next_key_seed(Name {
            node,
            keys: keys.as_mut(),
        })? {
            match (
                child.and_then(|at| Some((at, node.children.get(at)?))),
                &node.every,
            ) {
                (Some((at, child)), _) => {
                    let bit = 1_u64.checked_shl(u32::try_from(at).unwrap_or(u32::MAX));
                    let bit = bit.unwrap_or(0);
                    self.values.is_misshapen |= seen & bit != 0;
                    seen |= bit;
                    map.next_value_seed(self.below(&child.node, false))?;
                }
                (None, Some(every)) => map.next_value_seed(self.below(every, true))?,
                (None, None) => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        match keys {
            Some(keys) if keys.len() <= TEXTS_MAX => self.put(Captured::Keys(keys)),
            Some(_) | None => self.put(Captured::Other),
        }
        Ok(())
    }
}

/// Reads a field's name and finds the matching child of the node.
struct Name<'s, 'k, 'a> {
    node: &'s Node,
    /// Collects the names, if they are wanted.
    keys: Option<&'k mut Vec<Option<Cow<'a, str>>>>,
}

impl Name<'_, '_, '_> {
    fn child(&self, name: &str) -> Option<usize> {
        let mut children = self.node.children.iter();
        children.position(|child| *child.name == *name)
    }
}

impl<'a> DeserializeSeed<'a> for Name<'_, '_, 'a> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for Name<'_, '_, 'a> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_borrowed_str<E>(self, name: &'a str) -> Result<Self::Value, E> {
        let child = self.child(name);
        if let Some(keys) = self.keys {
            keys.push(Some(Cow::Borrowed(name)));
        }
        Ok(child)
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        let child = self.child(name);
        if let Some(keys) = self.keys {
            keys.push(Some(Cow::Owned(name.to_owned())));
        }
        Ok(child)
    }
}
