//! From a batch to operations: what can be checked, converted and written before a transaction is sequenced.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use underbelly_query::{
    Closed, Duplicates, MemoryRun, Same, SchemaColumn, TIMESTAMP, Tombstone, is_zone, repeated,
};
use underbelly_storage::disk::Disk;
use underbelly_storage::object::{Blob, ObjectId, write_chunk};
use underbelly_storage::segment::{Segment, SegmentInfo, SegmentRows, Seqs, write_segment};
use underbelly_storage::{ColumnError, Columns, LogicalTypes, Timestamp, Value, Values};

use crate::batch::{Batch, Rows as BatchRows};
use crate::core::{Core, Prepared};
use crate::error::{CommitError, ReadError};
use crate::feed::check_set;
use crate::files;
use crate::graph::{Deadline, Event, GraphError, Key, SlotDefinition, Submission, Write};
use crate::limits::{
    DELETES_MAX, FEW_COLUMNS_MAX, FEW_ROWS_MAX, INLINE_BYTES_MAX, OBJECT_BYTES_MAX, ROWS_MAX,
};
use crate::models::{BlobWriter, Body, Metadata, ModelId};
use crate::objects::{ChunkFile, Looks, Place};
use crate::operations::{Append, Deletes, Operations, PutModel, Rows};
use crate::pending::Pins;
use crate::record::v1;
use crate::series::{Delete, Few, Rules, Series, check_append, check_types, inexact};
use crate::slots::content;
use crate::snapshot::Snapshot;
use crate::transaction::Read;
use crate::variables::check_change;

/// Ids and lengths of the chunks of a blob.
type BlobChunks = Arc<[(ObjectId, u64)]>;

/// Refuses a stamp that is too far ahead of the clock.
fn check_skew(slot: &SlotDefinition, as_of: Timestamp, now: Timestamp) -> Result<(), CommitError> {
    let Some(max_skew) = slot.max_skew else { return Ok(()) };
    let ahead = i128::from(as_of.0) - i128::from(now.0);
    if ahead <= max_skew.as_nanos() as i128 {
        return Ok(());
    }
    Err(GraphError::Skew { slot: slot.name.clone(), as_of, now, max_skew }.into())
}

impl Core {
    /// Turns what a client wants into a record. The caller has entered the folder.
    pub(crate) fn prepare(&self, batch: Batch) -> Result<Prepared<'_>, CommitError> {
        batch.check()?;
        let mut pins = self.pending.pin();
        let Batch { appends, deletes, cells, mut models, deleted_models, variables, ends, backfill, .. } =
            batch;
        let (marks, removed, collects) = (batch.marks, batch.removed, batch.collects);
        let (as_of, session, deadlines) = (batch.as_of, batch.session, batch.deadlines);
        let mut operations = Box::<Operations>::default();
        let mut writes = Vec::new();
        let mut slots = HashMap::new();
        let stamped = as_of.map(|as_of| (as_of, self.options.clock.now()));
        for put in cells {
            let (slot, definition) = match slots.get(&put.slot) {
                Some(known) => known,
                None => slots.entry(put.slot.clone()).or_insert(self.slot(&put.slot)?),
            };
            stamped.map_or(Ok(()), |(as_of, now)| check_skew(definition, as_of, now))?;
            let key = Key::new(put.key)?;
            let content = match put.rows {
                Some(rows) => Some(self.prepare_content(definition, rows, &mut operations, &mut pins)?),
                None => None,
            };
            writes.push(Write { slot: *slot, date: put.date, key, priority: put.priority, content });
        }
        for change in &variables {
            check_change(&change.name, change.value.as_ref())?;
            // What is under way counts: it is in the log before this transaction.
            let newest = || self.state().head;
            change.value.as_ref().map_or(Ok(()), |value| check_set(&change.name, value, newest))?;
        }
        for change in &marks {
            change.check()?;
        }
        (operations.marks, operations.removed, operations.collects) = (marks, removed, collects);
        operations.variables = variables;
        self.pass_gates(&appends, &deletes, &mut operations);
        operations.deletes = self.prepare_deletes(deletes, &appends, &mut operations.rests_on)?;
        if !deleted_models.is_empty() {
            operations.deleted_models = take_out_deleted(&mut models, deleted_models)?;
        }
        self.prepare_data(appends, models, &mut operations, &mut pins)?;
        if !operations.models.is_empty() || !operations.deleted_models.is_empty() {
            writes.extend(self.write_models(&mut operations, &mut pins)?);
        }
        if writes.len() > 1 {
            keep_last(&mut writes);
        }
        let mut due = Vec::with_capacity(deadlines.len());
        for (slot, date, due_by) in deadlines {
            due.push(Deadline { due_by, slot: self.slot(&slot)?.0, date });
        }
        if !writes.is_empty() || !ends.is_empty() || !due.is_empty() || session.is_some() {
            let submission = Submission { writes, ends, backfill, as_of, session, deadlines: due };
            operations.event = Some(Event::Commit(submission));
        }
        self.encode(operations, pins)
    }

    /// What hides rows, as far as the series is there or the batch makes it, by series. Another commit may make it first, or
    /// delete, of which [`State::check_since`](crate::state::State::check_since) takes care.
    fn prepare_deletes(
        &self,
        deletes: Vec<(Arc<str>, Delete)>,
        appends: &[BatchRows],
        rests_on: &mut Vec<Read>,
    ) -> Result<Vec<Deletes>, CommitError> {
        let mut of_series = BTreeMap::<Arc<str>, Vec<Delete>>::new();
        for (series, delete) in deletes {
            of_series.entry(series).or_default().push(delete);
        }
        let mut checked = Vec::with_capacity(of_series.len());
        for (series, deletes) in of_series {
            let there = {
                let state = self.state();
                // Pinned under the lock: no checkpoint that begins later leaves out what it shows.
                let head = || Snapshot::at(self.view.base(), state.head);
                state.tables.get(&series).map(|table| {
                    let rules = table.rules();
                    (table.schema_at(u64::MAX), rules.duplicates.resolves().then(head))
                })
            };
            let head = there.as_ref().and_then(|(_, head)| head.as_ref());
            // Of those by values rows are found where one is shown for several, and tombstones are made elsewhere.
            let parts = |delete: &Delete| match head {
                Some(_) if delete.is_filtered() => 0,
                _ => delete.parts(),
            };
            let found = deletes.iter().map(parts).fold(0, usize::saturating_add);
            if found > DELETES_MAX {
                let (series, limit) = (series.to_string(), DELETES_MAX);
                return Err(CommitError::TooManyDeletes { series, found, limit, held: None });
            }
            let schema = match &there {
                Some((schema, _)) => schema.clone(),
                None => {
                    let makes = |rows: &&BatchRows| rows.series == series && !rows.timestamps.is_empty();
                    let unknown = || ReadError::UnknownSeries { series: series.to_string() };
                    let rows = appends.iter().find(makes).ok_or_else(unknown)?;
                    let schema = rows.schema();
                    let columns = schema.columns.iter().map(|c| (&*c.name, c.column_type, c.key));
                    check_append(None, &series, columns, &[], Some(&rows.types))?;
                    Arc::new(schema)
                }
            };
            let shown = match head {
                Some(head) if deletes.iter().any(Delete::is_filtered) => {
                    rests_on.push(Read::Series { name: series.to_string(), seq: head.seq() });
                    Some(head.series(&series)?)
                }
                _ => None,
            };
            let mut tombstones: Vec<Tombstone> = Vec::with_capacity(deletes.len());
            for delete in &deletes {
                match &shown {
                    Some(shown) if delete.is_filtered() => tombstones.append(&mut shown_rows(shown, delete)?),
                    _ => tombstones.append(&mut delete.tombstones(&schema).map_err(ReadError::from)?),
                }
            }
            checked.push(Deletes { series, tombstones, schema: Some(schema) });
        }
        Ok(checked)
    }

    /// Waits until nobody else appends to the types whose appends look at what is there, nor deletes what they may have found.
    fn pass_gates(&self, appends: &[BatchRows], deletes: &[(Arc<str>, Delete)], operations: &mut Operations) {
        if !self.gates.is_wanted() || !operations.gates.is_empty() {
            return;
        }
        let wanted: BTreeSet<&Arc<str>> = {
            let state = self.state();
            let is_wanted = |series: &Arc<str>, wants: fn(&Rules) -> bool| {
                state.tables.get(series).is_some_and(|table| wants(&table.rules()))
            };
            let appended = appends.iter().map(|rows| &rows.series);
            let appended = appended.filter(|series| is_wanted(series, Rules::checks_appends));
            let deleted = deletes.iter().map(|(series, _)| series);
            let deleted = deleted.filter(|series| is_wanted(series, |rules| rules.skip_identical));
            appended.chain(deleted).collect()
        };
        operations.gates = wanted.into_iter().map(|series| self.gates.pass(series)).collect();
    }

    /// Whether others may change what the rows and deletes of a batch are prepared from, so that it is to be prepared again.
    pub(crate) fn may_be_overtaken(&self, batch: &Batch) -> bool {
        let is_checked = || {
            let state = self.state();
            let is_checked = |rows: &BatchRows| {
                state.tables.get(&rows.series).is_some_and(|table| table.rules().checks_appends())
            };
            batch.appends.iter().any(is_checked)
        };
        !batch.deleted_models.is_empty()
            || batch.deletes.iter().any(|(_, delete)| delete.is_filtered())
            || self.gates.is_wanted() && is_checked()
    }

    /// Compares rows with those that are there, as far as the rules of their type want that: refuses duplicates, and leaves out
    /// what is there already. The gate of the type was passed, so that nobody appends to it meanwhile, or deletes where rows are
    /// left out.
    fn compare(
        &self,
        rows: BatchRows,
        operations: &mut Operations,
    ) -> Result<(BatchRows, bool), CommitError> {
        if !self.gates.is_wanted() {
            return Ok((rows, false));
        }
        let checking = {
            let state = self.state();
            let rules = state.tables.get(&rows.series).map(|table| table.rules());
            // Pinned under the lock: no checkpoint that begins later leaves out what it shows.
            let checking = rules.filter(Rules::checks_appends);
            checking.map(|rules| (rules, Snapshot::at(self.view.base(), state.head)))
        };
        let Some((rules, head)) = checking else { return Ok((rows, false)) };
        // What may not be appended at all is not the same as anything.
        {
            let described = rows.columns.iter().enumerate();
            let described =
                described.map(|(i, (name, column))| (&**name, column.column_type(), i < rows.keys));
            let inexact = inexact::in_columns(rows.columns.iter().map(|(name, column)| (name, column)));
            let state = self.state();
            let table = state.tables.get(&rows.series);
            check_append(table, &rows.series, described, &inexact, Some(&rows.types))?;
        }
        // Rules that came behind the gate find out when the transaction is sequenced that nobody waited there.
        let is_gated = operations.gates.iter().any(|gate| gate.series == rows.series);
        let series = head.series(&rows.series)?;
        let deletes = operations.deletes.iter().filter(|deletes| deletes.series == rows.series);
        let series = series.without(deletes.flat_map(|deletes| &deletes.tombstones));
        let mut rows = rows;
        if rules.skip_identical {
            let columns: Vec<_> = rows.columns.iter().map(|(name, column)| (name, column)).collect();
            let same = match rules.duplicates.resolves() {
                true => Same::Shown { keys: rows.keys },
                false => Same::Row,
            };
            let known = repeated(&series, &rows.timestamps, &columns, same).map_err(ReadError::from)?;
            if known.contains(&true) {
                let left = (0u32..).zip(&known).filter(|(_, known)| !**known).map(|(row, _)| row);
                rows = rows.taken(&left.collect::<Vec<_>>())?;
                // Who deletes by rules of before waited at no gate.
                operations.rests_on.push(Read::Series { name: rows.series.to_string(), seq: head.seq() });
            }
        }
        if rules.duplicates == Duplicates::Reject {
            let keys = rows.columns.iter().take(rows.keys).map(|(name, column)| (name, column));
            let keys: Vec<_> = keys.collect();
            let known =
                repeated(&series, &rows.timestamps, &keys, Same::Identity).map_err(ReadError::from)?;
            if let Some(row) = known.iter().position(|known| *known) {
                return Err(CommitError::Duplicate {
                    series: rows.series.to_string(),
                    keys: keys.iter().map(|(name, column)| (name.to_string(), column.get(row))).collect(),
                    timestamp: Timestamp(rows.timestamps.get(row).copied().unwrap_or_default()),
                });
            }
        }
        Ok((rows, is_gated))
    }

    /// Rows and models, for clients and producers alike.
    pub(crate) fn prepare_data(
        &self,
        appends: Vec<BatchRows>,
        models: Vec<(Metadata, Body)>,
        operations: &mut Operations,
        pins: &mut Pins<'_>,
    ) -> Result<(), CommitError> {
        let mut looks = Looks::default();
        for (metadata, body) in models {
            let (id, timestamp) = (metadata.id()?, metadata.timestamp()?);
            let cbor = metadata.to_cbor()?.into();
            let (object, bytes, chunks) = self.prepare_body(body, &mut looks, operations, pins)?;
            let metadata = Arc::new(metadata);
            operations.models.push(PutModel { id, metadata, cbor, timestamp, object, bytes, chunks });
        }
        self.pass_gates(&appends, &[], operations);
        operations.appends.reserve_exact(appends.len());
        for rows in appends {
            if let Some(append) = self.prepare_append(rows, operations, pins)? {
                operations.appends.push(append);
            }
        }
        Ok(())
    }

    /// Stores the rows of a cell and answers their identity.
    pub(crate) fn prepare_content(
        &self,
        definition: &SlotDefinition,
        rows: Columns,
        operations: &mut Operations,
        pins: &mut Pins<'_>,
    ) -> Result<[u8; 32], CommitError> {
        let rows = content::conform(definition, rows)?;
        // Most of what is put is what is there, many times in a run; reading it each time would cost more than all else.
        Ok(self.prepare_object(content::encode(&rows).into(), None, operations, pins)?.0)
    }

    /// Stores the blob of a version, in chunks where it is too long for the log; answers its hash, its length and its chunks.
    fn prepare_body(
        &self,
        body: Body,
        looks: &mut Looks,
        operations: &mut Operations,
        pins: &mut Pins<'_>,
    ) -> Result<(ObjectId, u64, BlobChunks), CommitError> {
        let stored = match body {
            Body::Stored(stored) if !stored.is_of(&self.pending) => return Err(CommitError::ForeignBlob),
            Body::Stored(stored) => stored,
            Body::Bytes(blob) if self.fits_inline(blob.len(), operations) => {
                let bytes = blob.len() as u64;
                let object = self.prepare_object(blob, Some(looks), operations, pins)?;
                return Ok((object, bytes, Arc::default()));
            }
            Body::Bytes(blob) => BlobWriter::write(self, &blob)?,
        };
        if let Some(blob) = stored.in_memory() {
            return self.prepare_body(Body::Bytes(blob.clone()), looks, operations, pins);
        }
        for (id, bytes, file) in stored.written() {
            if !self.objects.may_stay(id, Some(looks)) {
                operations.objects.insert(*id, Place::Chunk(file.clone(), bytes));
            }
        }
        let prepared = (stored.content(), stored.bytes(), stored.chunks().clone());
        // It pins what it wrote, and what it found stored.
        operations.stored.push(stored);
        Ok(prepared)
    }

    /// `looks` where its file is read to see whether it is stored.
    fn prepare_object(
        &self,
        bytes: Blob,
        looks: Option<&mut Looks>,
        operations: &mut Operations,
        pins: &mut Pins<'_>,
    ) -> Result<ObjectId, CommitError> {
        if bytes.len() > OBJECT_BYTES_MAX {
            return Err(CommitError::TooLarge {
                what: "an object",
                found: bytes.len() as u64,
                limit: OBJECT_BYTES_MAX as u64,
                remedy: "split it",
            });
        }
        let id = ObjectId::of(&bytes);
        pins.object(id);
        // What is found damaged or gone is stored anew, which mends whatever else names it.
        if operations.objects.contains_key(&id) || self.objects.may_stay(&id, looks) {
            return Ok(id);
        }
        let place = if !self.fits_inline(bytes.len(), operations) {
            let file = self.new_file();
            pins.file(file);
            self.disk_dir(files::CHUNKS_DIR)?;
            let written = write_chunk(&*self.disk, &files::chunk(file), self.database, &bytes)?;
            debug_assert_eq!(written, id);
            Place::Chunk(Arc::new(ChunkFile::new(file)), bytes.len() as u64)
        } else {
            operations.inline_bytes += bytes.len();
            Place::Memory(bytes)
        };
        operations.objects.insert(id, place);
        Ok(id)
    }

    /// Bytes of an object that alone may go into the record.
    pub(crate) fn inline_bytes_max(&self) -> usize {
        self.view.base().blob_limits.small_max
    }

    /// Whether so many more bytes may go into the record.
    fn fits_inline(&self, bytes: usize, operations: &Operations) -> bool {
        bytes <= INLINE_BYTES_MAX && operations.inline_bytes + bytes <= self.record_bytes_max / 2
    }

    /// Makes a folder of the database, if it is not there.
    pub(crate) fn disk_dir(&self, dir: &str) -> Result<(), CommitError> {
        self.disk
            .create_dir(dir)
            .map_err(|source| underbelly_storage::error::StorageError::io("make folder", dir, source).into())
    }

    /// Says whether columns may have these types, and whether there are the zones that they have not yet.
    fn check_types(&self, series: &Arc<str>, types: &LogicalTypes) -> Result<(), CommitError> {
        let known = {
            let state = self.state();
            let table = state.tables.get(series);
            check_types(table, series, types)?;
            table.map(|table| table.types().clone()).unwrap_or_default()
        };
        for (column, logical) in types.iter().filter(|(column, logical)| known.get(column) != Some(logical)) {
            if let Some(zone) = logical.zone().filter(|zone| !is_zone(zone)) {
                return Err(CommitError::UnknownZone {
                    series: series.to_string(),
                    column: column.to_string(),
                    zone: zone.to_string(),
                });
            }
        }
        Ok(())
    }

    fn prepare_append(
        &self,
        rows: BatchRows,
        operations: &mut Operations,
        pins: &mut Pins<'_>,
    ) -> Result<Option<Append>, CommitError> {
        if !rows.types.is_empty() {
            self.check_types(&rows.series, &rows.types)?;
            operations.types.push((rows.series.clone(), rows.types.clone()));
        }
        if rows.timestamps.is_empty() {
            return Ok(None);
        }
        let (rows, checked) = self.compare(rows, operations)?;
        let BatchRows { series, timestamps, columns, keys, types } = rows;
        if timestamps.is_empty() {
            return Ok(None);
        }
        let wrong = |what| CommitError::Series { series: series.to_string(), what };
        if timestamps.len() > ROWS_MAX {
            return Err(wrong(format!(
                "{} rows are more than {ROWS_MAX}; append in parts",
                timestamps.len()
            )));
        }
        for (name, column) in columns.iter().take(keys) {
            let nan = match column.values() {
                Values::F64(values) => values.iter().position(|v| v.is_nan()),
                Values::F32(values) => values.iter().position(|v| v.is_nan()),
                _ => None,
            };
            if let Some(row) = nan {
                return Err(wrong(format!("key column {name:?} is NaN in row {row}; give it a number")));
            }
        }
        let bytes =
            timestamps.len() * 8 + columns.iter().map(|(_, column)| column.byte_size()).sum::<usize>();
        if timestamps.len() <= FEW_ROWS_MAX
            && columns.len() <= FEW_COLUMNS_MAX
            && self.fits_inline(bytes, operations)
        {
            // Compared with the series when the transaction is sequenced.
            let twice = columns
                .iter()
                .enumerate()
                .find(|(i, (name, _))| columns[..*i].iter().any(|(n, _)| n == name));
            if let Some((_, (name, _))) = twice {
                return Err(ColumnError::Duplicate { column: name.to_string() }.into());
            }
            operations.inline_bytes += bytes;
            let inexact = inexact::in_columns(columns.iter().map(|(name, column)| (name, column)));
            let rows = Rows::Few(Few { timestamps, columns, keys });
            return Ok(Some(Append { series, rows, inexact, checked, types: Some(types) }));
        }
        let mut named = Columns::new();
        for (name, column) in columns {
            named.insert(name, column)?;
        }
        let columns = named;
        let after = {
            let state = self.state();
            let described = columns.iter().enumerate();
            let described = described.map(|(i, (name, c))| (&**name, c.column_type(), i < keys));
            check_append(state.tables.get(&*series), &series, described, &[], Some(&types))?;
            state.head
        };
        // Sorted here, outside every lock; the seq follows when the rows have one.
        let run = MemoryRun::new(timestamps, columns, 0)
            .map_err(|error| CommitError::Internal { what: error.to_string() })?;
        let inexact = inexact::in_columns(run.columns().iter());
        if self.fits_inline(bytes, operations) {
            operations.inline_bytes += bytes;
            return Ok(Some(Append {
                series,
                rows: Rows::Inline { run, keys },
                inexact,
                checked,
                types: Some(types),
            }));
        }
        let keys = run.columns().names()[..keys].iter().map(|name| &**name).collect();
        let file = self.new_file();
        pins.file(file);
        let (timestamps, columns, seqs) = (run.timestamps(), run.columns(), Seqs::Assigned);
        let rows = SegmentRows {
            timestamps,
            seqs,
            columns,
            keys: &keys,
            by_key: self.options.sealed_by_key,
            after,
            replaced: &[],
        };
        let (segment, reference) = self.write_segment(&*self.disk, &series, file, &rows)?;
        let rows = Rows::Segment { segment: Ok(segment), reference };
        Ok(Some(Append { series, rows, inexact, checked, types: Some(types) }))
    }

    /// Seals rows. The reference has no seq, which is right where each row has its own.
    pub(crate) fn write_segment(
        &self,
        disk: &dyn Disk,
        series: &str,
        file: u64,
        rows: &SegmentRows<'_>,
    ) -> Result<(Segment, v1::SegmentRef), CommitError> {
        self.disk_dir(&files::segment_dir(series))?;
        let name = files::segment(series, file);
        let info = write_segment(disk, &name, self.database, rows, &self.pool)?;
        let schema = rows.columns.iter().map(|(name, column)| v1::SchemaColumn {
            name: name.to_string(),
            column_type: column.column_type().tag(),
            key: rows.keys.contains(&**name),
        });
        self.open_written(&info, file, schema.collect())
    }

    /// Opens a segment that was written just now. The reference has no seq.
    pub(crate) fn open_written(
        &self,
        info: &SegmentInfo,
        file: u64,
        schema: Vec<v1::SchemaColumn>,
    ) -> Result<(Segment, v1::SegmentRef), CommitError> {
        let reference = v1::SegmentRef {
            file,
            bytes: info.bytes,
            rows: info.rows,
            ts_min: info.ts_min,
            ts_max: info.ts_max,
            footer_hash: info.footer_hash,
            seq: 0,
            schema,
        };
        Ok((Segment::open(&*self.disk, &info.file, self.database, Some(info))?, reference))
    }
}

/// Of rows of which one is shown for several, predicates are about that one; and where it goes, so do all that it stands
/// for. So what hides them names each by its keys and its timestamp.
fn shown_rows(shown: &Series, delete: &Delete) -> Result<Vec<Tombstone>, CommitError> {
    let keys: Vec<&SchemaColumn> = shown.schema().keys().collect();
    let mut found = Vec::new();
    let of_keys = delete.of_keys(shown.schema()).map_err(ReadError::from)?;
    let (first, last) = of_keys.range();
    // Refuses what does not fit also where the range is empty.
    let predicates = delete.predicates();
    of_keys.clone().matching(shown.schema(), predicates).map_err(ReadError::from)?;
    if first > last {
        return Ok(found);
    }
    let mut scan = shown.scan().from(first).to(last).closed(Closed::Both);
    for (name, value) in of_keys.keys() {
        scan = scan.key(name, value.clone());
    }
    for (name, predicate) in predicates {
        scan = scan.filter(name, predicate.clone());
    }
    for batch in scan.columns(keys.iter().map(|key| &*key.name)).batches() {
        let batch = batch.map_err(ReadError::from)?;
        for (row, ts) in batch.timestamps(TIMESTAMP).unwrap_or_default().iter().enumerate() {
            let key =
                |key: &&SchemaColumn| (key.name.clone(), batch.value(&key.name, row).unwrap_or(Value::Null));
            let keys = keys.iter().map(key).collect();
            found.push(Tombstone::restored(0, Timestamp(*ts), Timestamp(*ts), keys));
        }
        if found.len() > DELETES_MAX {
            let (series, found, limit) = (shown.name().to_string(), found.len(), DELETES_MAX);
            return Err(CommitError::TooManyDeletes { series, found, limit, held: None });
        }
    }
    Ok(found)
}

/// Takes out puts that a deletion follows; answers the models that are deleted before the others are put.
fn take_out_deleted(
    models: &mut Vec<(Metadata, Body)>,
    deleted: Vec<(ModelId, usize)>,
) -> Result<Vec<ModelId>, CommitError> {
    // The last deletion of each counts.
    let deleted: BTreeMap<ModelId, usize> = deleted.into_iter().collect();
    let mut kept = Vec::new();
    for (at, (metadata, blob)) in std::mem::take(models).into_iter().enumerate() {
        let before = deleted.get(&metadata.id()?);
        if before.is_none_or(|before| at >= *before) {
            kept.push((metadata, blob));
        }
    }
    *models = kept;
    Ok(deleted.into_keys().collect())
}

/// Of several writes to one cell the last counts.
pub(crate) fn keep_last(writes: &mut Vec<Write>) {
    let mut seen = HashSet::new();
    let mut keep: Vec<bool> = writes
        .iter()
        .rev()
        .map(|write| seen.insert((write.slot, write.date, write.key.clone(), write.priority)))
        .collect();
    writes.retain(|_| keep.pop().unwrap_or(true));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::batch::Row;
    use crate::database::Database;
    use crate::durability::Durability;
    use crate::options::Options;
    use crate::series::SeriesDefinition;
    use std::cell::Cell;
    use underbelly_query::{Predicate, QueryError};
    use underbelly_storage::disk::SimulatedDisk;

    fn skipping() -> SeriesDefinition {
        SeriesDefinition::new("s").skip_identical()
    }

    /// Where an append leaves out rows that others delete meanwhile, it is prepared again: who deletes waits at the gate of such a
    /// type, but not where it was none yet.
    #[test]
    fn rows_are_not_left_out_because_of_others_that_go() {
        let db = Database::create_on(Arc::new(SimulatedDisk::new()), Options::default()).unwrap();
        let core = db.core();
        db.commit(batch([row(1, "k", 1)], [])).unwrap();
        let delete = core.prepare(batch([], [Delete::all()])).unwrap();
        db.redefine_series(skipping()).unwrap();
        let append = core.prepare(batch([row(1, "k", 1)], [])).unwrap();
        assert!(append.operations.appends.is_empty());
        core.sequence(delete, Durability::Sync, |_| Ok(())).unwrap();
        let overtaken = core.sequence(append, Durability::Sync, |_| Ok(())).map(drop).unwrap_err();
        assert!(matches!(overtaken, CommitError::Conflict { .. }), "{overtaken}");
        db.commit(batch([row(1, "k", 1)], [])).unwrap();
        assert_eq!(numbers(&db), [1]);
    }

    /// What meets another state of its series than it was prepared from is prepared again.
    #[test]
    fn what_was_overtaken_is_prepared_again() {
        let by_value = || batch([], [Delete::all().filter("x", Predicate::Equal(2i64.into()))]);
        let last_wins = || SeriesDefinition::new("s").duplicates(Duplicates::LastWins);
        let db = Database::create_on(Arc::new(SimulatedDisk::new()), Options::default()).unwrap();
        let core = db.core();
        let place = |batch: Batch, overtake: &dyn Fn()| {
            let is_first = Cell::new(true);
            let placed = core.place_by(batch, |mut prepared| {
                // As if whoever overtakes had passed the gate before.
                prepared.operations.gates.clear();
                if is_first.take() {
                    overtake();
                }
                core.sequence(prepared, Durability::Sync, |_| Ok(()))
            });
            core.answer(placed.unwrap().0.seq, Durability::Sync).unwrap();
        };
        db.commit(batch([row(1, "k", 1), row(1, "k", 2)], [])).unwrap();
        place(by_value(), &|| db.redefine_series(last_wins()).unwrap());
        assert_eq!(numbers(&db), Vec::<i64>::new(), "what is shown goes with what it stands for");
        db.redefine_series(last_wins().skip_identical()).unwrap();
        let own = || batch([row(1, "k", 1)], []);
        db.commit(own()).unwrap();
        place(own(), &|| assert_eq!(db.commit(batch([], [Delete::all()])).unwrap().changed, 0));
        assert_eq!(numbers(&db), [1]);
    }

    /// So it is where the rows are to be left out no more.
    #[test]
    fn rows_are_not_left_out_by_rules_of_before() {
        let db = Database::create_on(Arc::new(SimulatedDisk::new()), Options::default()).unwrap();
        db.define_series(skipping()).unwrap();
        db.commit(batch([row(1, "k", 1)], [])).unwrap();
        let core = db.core();
        let mut append = core.prepare(batch([row(1, "k", 1)], [])).unwrap();
        // As if the new rules had been on their way before.
        append.operations.gates.clear();
        db.redefine_series(SeriesDefinition::new("s")).unwrap();
        let overtaken = core.sequence(append, Durability::Sync, |_| Ok(())).map(drop).unwrap_err();
        assert!(matches!(overtaken, CommitError::Conflict { .. }), "{overtaken}");
    }

    fn row(at: i64, key: &str, x: i64) -> Row {
        Row::new("s", Timestamp(at)).key(key.to_string(), "a").field("x", x)
    }

    fn batch(rows: impl IntoIterator<Item = Row>, deletes: impl IntoIterator<Item = Delete>) -> Batch {
        let mut batch = Batch::new();
        for row in rows {
            batch.append(row).unwrap();
        }
        for delete in deletes {
            batch.delete_rows("s", delete);
        }
        batch
    }

    fn numbers(db: &Database) -> Vec<i64> {
        db.snapshot().series("s").unwrap().scan().collect().unwrap().i64s("x").unwrap().to_vec()
    }

    /// Commits a batch that was prepared before another was committed.
    fn overtaken(disk: &SimulatedDisk, batch: Batch, by: Batch) -> (Database, Result<(), CommitError>) {
        let options = Options { workers: 0, log_file_bytes: 64 << 10, ..Options::default() };
        let db = Database::create_on(Arc::new(disk.clone()), options).unwrap();
        let core = db.core();
        let prepared = core.prepare(batch).unwrap();
        db.commit(by).unwrap();
        let done = core.sequence(prepared, Durability::Sync, |_| Ok(()));
        let done = done.and_then(|(commit, _)| core.answer(commit.seq, Durability::Sync));
        (db, done)
    }

    /// A batch that is to make a series deletes what another commit put there first, and no row of its own.
    #[test]
    fn a_delete_counts_for_a_series_that_another_commit_made_first() {
        for delete in [Delete::all(), Delete::all().key("k", "a")] {
            let disk = SimulatedDisk::new();
            let own = batch([row(1, "k", 1)], [delete]);
            let (db, done) = overtaken(&disk, own, batch([row(0, "k", 7), row(1, "k", 8)], []));
            done.unwrap();
            assert_eq!(numbers(&db), [1]);
            let options = Options { workers: 0, ..Options::default() };
            assert_eq!(numbers(&Database::open_on(Arc::new(disk.crash()), options).unwrap()), [1]);
        }
    }

    /// Where that other commit made it without the key, the delete does not fit, as it would not had it come later.
    #[test]
    fn a_delete_that_fits_no_more_is_refused() {
        let disk = SimulatedDisk::new();
        let own = || batch([row(1, "k", 1)], [Delete::all().key("k", "a")]);
        let (db, done) = overtaken(&disk, own(), batch([row(0, "other", 7)], []));
        for done in [done, db.commit(own()).map(drop)] {
            let unknown = |error: &CommitError| match error {
                CommitError::Read(ReadError::Query(QueryError::UnknownColumn { name, .. })) => name == "k",
                _ => false,
            };
            assert!(done.as_ref().is_err_and(unknown), "{done:?}");
        }
        assert_eq!(numbers(&db), [7]);
    }

    /// More deletes of a series than may wait are refused before it gets in anybody's way.
    #[test]
    fn too_many_deletes_of_one_batch_are_refused_as_it_is_prepared() {
        let options = Options { workers: 0, ..Options::default() };
        let db = Database::create_on(Arc::new(SimulatedDisk::new()), options).unwrap();
        db.commit(batch([row(0, "k", 1)], [])).unwrap();
        let deletes = |count| batch([], vec![Delete::all().to(Timestamp(0)); count]);
        assert_eq!(
            db.core().prepare(deletes(DELETES_MAX)).unwrap().operations.load(0).deletes,
            DELETES_MAX as u64
        );
        let refused = db.core().prepare(deletes(DELETES_MAX + 1)).map(drop).unwrap_err();
        let is_told = |found: usize| found == DELETES_MAX + 1;
        assert!(matches!(refused, CommitError::TooManyDeletes { found, .. } if is_told(found)), "{refused}");
    }

    /// Rows make a series; an append without any does not, and a delete in what it names is told so.
    #[test]
    fn a_delete_beside_an_append_of_nothing_is_refused() {
        let db = Database::create_on(Arc::new(SimulatedDisk::new()), Options::default()).unwrap();
        let mut nothing = batch([], [Delete::all()]);
        nothing.append_columns("s", Vec::new(), Columns::new(), &[]).unwrap();
        let error = db.commit(nothing).unwrap_err();
        assert!(matches!(error, CommitError::Read(ReadError::UnknownSeries { .. })), "{error}");
        let wrong = db.commit(batch([row(0, "k", 1)], [Delete::all().key("x", 1)])).unwrap_err();
        assert!(matches!(wrong, CommitError::Read(ReadError::Query(QueryError::NotKey { .. }))), "{wrong}");
        // What is wrong with the rows is told as it is without the delete.
        let bytes = || Row::new("s", Timestamp(0)).key("k", Value::Bytes(Arc::from(&b"a"[..])));
        let alone = db.commit(batch([bytes()], [])).unwrap_err();
        let beside =
            db.commit(batch([bytes()], [Delete::all().key("k", Value::Bytes(Arc::from(&b"a"[..])))]));
        assert_eq!(beside.unwrap_err().to_string(), alone.to_string());
        db.commit(batch([row(0, "k", 1)], [Delete::all()])).unwrap();
        assert_eq!(numbers(&db), [1]);
    }
}
