//! libCacheSim's `oracleGeneral`: a list of accesses, 24 bytes each, little-endian, without a header.
//!
//! | bytes | field | written as |
//! |---|---|---|
//! | 4 | time | token, counted over all requests |
//! | 8 | object id | `layer * experts + expert` |
//! | 4 | size | 1: every block takes one slot |
//! | 8 | next access, signed | number of the next access to the same object, from 0; -1 if there is none |
//!
//! The format knows no layers, requests, prompts or gate weights. Read, it is a trace of one layer in which each
//! access is a token that selects one expert: a replay is then access by access whatever the order asked for, and
//! what needs layers (simulation, look-ahead) has nothing to go by. Ids above 65534 are numbered in order of first
//! appearance; a trace of more than 65535 objects, or of objects of different sizes, is refused.

use crate::error::{At, Problem, TraceError};
use crate::import::{Options, Source, experts_for};
use crate::routing::{PADDING, RoutingTrace, Shape, TraceInfo};
use policy::Demands;
use std::collections::BTreeMap;
use std::io::{self, Write};

const RECORD: usize = 24;

/// Reads a whole file as a trace of one layer.
pub(crate) fn decode(source: &Source, options: &Options) -> Result<RoutingTrace, TraceError> {
    let (selections, largest) = objects(source.bytes)?;
    let shape = Shape::new(1, experts_for(options.experts, largest), 1)?;
    let info = TraceInfo { rows: 0..selections.len(), name: source.name.to_owned(), ..TraceInfo::default() };
    RoutingTrace::new(shape, selections, None, vec![info])
}

/// Reads a whole file as what a replay needs of it: the demands of the trace that [`decode`] gives.
pub(crate) fn decode_demands(source: &Source, options: &Options) -> Result<Demands, TraceError> {
    let (ids, largest) = objects(source.bytes)?;
    let shape = Shape::new(1, experts_for(options.experts, largest), 1)?;
    if u32::from(largest) >= shape.blocks() {
        return decode(source, options).map(|trace| trace.demands(true));
    }
    Ok(Demands::of_singles(shape.blocks(), ids))
}

/// The object of each access, and the largest number of one.
fn objects(bytes: &[u8]) -> Result<(Vec<u16>, u16), TraceError> {
    let (records, rest) = bytes.as_chunks::<RECORD>();
    if !rest.is_empty() {
        let declared = (records.len() as u64 + 1) * RECORD as u64;
        return Err(Problem::Size { declared, actual: bytes.len() as u64 }.into());
    }
    let first = size(records.first().ok_or(Problem::Empty)?);
    // One pass over the file, which is large; what it finds wrong is looked for again.
    let (mut sizes_differ, mut largest) = (0, 0);
    let read = |record: &[u8; RECORD]| {
        sizes_differ |= size(record) ^ first;
        largest = largest.max(id(record));
        id(record) as u16
    };
    let objects = records.iter().map(read).collect();
    if sizes_differ != 0
        && let Some(index) = records.iter().position(|record| size(record) != first)
    {
        let problem = Problem::UnequalSizes { found: size(&records[index]), expected: first };
        return Err(TraceError::at(At::Byte((index * RECORD) as u64), problem));
    }
    match u16::try_from(largest).ok().filter(|&largest| largest < PADDING) {
        Some(largest) => Ok((objects, largest)),
        None => numbered(records),
    }
}

/// Objects by number of first appearance.
fn numbered(records: &[[u8; RECORD]]) -> Result<(Vec<u16>, u16), TraceError> {
    let mut numbers = BTreeMap::new();
    let mut objects = Vec::with_capacity(records.len());
    for record in records {
        let next = numbers.len() as u16;
        let number = *numbers.entry(id(record)).or_insert(next);
        let limit = u64::from(PADDING);
        if number == PADDING {
            return Err(Problem::TooLarge { what: "objects", size: limit + 1, limit }.into());
        }
        objects.push(number);
    }
    Ok((objects, numbers.len().saturating_sub(1) as u16))
}

fn id(record: &[u8; RECORD]) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|index| record[4 + index]))
}

fn size(record: &[u8; RECORD]) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|index| record[12 + index]))
}

/// Writes the decoded tokens of every request.
pub(crate) fn encode(trace: &RoutingTrace, out: &mut impl Write) -> io::Result<()> {
    let demands = trace.demands(true);
    let ids = demands.ids();
    let mut next = vec![-1_i64; ids.len()];
    let mut later = vec![-1_i64; demands.universe() as usize];
    for (index, &id) in ids.iter().enumerate().rev() {
        next[index] = std::mem::replace(&mut later[id as usize], index as i64);
    }
    for step in 0..demands.len() {
        let time = u32::try_from(step / trace.shape().layers as usize).unwrap_or(u32::MAX);
        for (&id, next) in demands.step(step).iter().zip(&next[demands.offset(step)..]) {
            out.write_all(&time.to_le_bytes())?;
            out.write_all(&u64::from(id).to_le_bytes())?;
            out.write_all(&1_u32.to_le_bytes())?;
            out.write_all(&next.to_le_bytes())?;
        }
    }
    Ok(())
}
