//! The runs of an experiment as a table: a row for each cell, policy and seed, as CSV, JSON or Parquet.

use super::regime::Pressure;
use super::{Cell, Measured};
use crate::metric::METRICS;
use crate::output::{Draft, OutputError};
use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;
use serde_json::{Map, Value};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// Why a table cannot be written.
#[derive(Debug, Error)]
pub enum TableError {
    /// The name does not say how.
    #[error("{}: a table is written by the end of its name: .csv, .json or .parquet", .0.display())]
    Format(PathBuf),
    /// The file cannot be written.
    #[error(transparent)]
    File(#[from] OutputError),
}

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Csv,
    Json,
    Parquet,
}

/// A file that a table will be written to. It has its name once it is whole.
pub struct TableFile {
    format: Format,
    draft: Draft,
}

impl TableFile {
    /// Begins a file; the end of its name says how the table is written.
    ///
    /// # Errors
    /// The end of the name is not known, or no file can be made there.
    pub fn create(path: &Path) -> Result<TableFile, TableError> {
        let format = match path.extension().and_then(|end| end.to_str()) {
            Some("csv") => Format::Csv,
            Some("json") => Format::Json,
            Some("parquet") => Format::Parquet,
            _ => return Err(TableError::Format(path.to_owned())),
        };
        Ok(TableFile { format, draft: Draft::create(path.to_owned())? })
    }

    /// Writes a table and gives the file its name.
    ///
    /// # Errors
    /// The file cannot be written; then it does not appear.
    pub fn write(mut self, table: &Table) -> Result<(), TableError> {
        let written = match self.format {
            Format::Csv => table.csv(&mut self.draft),
            Format::Json => table.json(&mut self.draft),
            Format::Parquet => table.parquet(&mut self.draft).map_err(io::Error::other),
        };
        self.draft.complete(written)?.publish()?;
        Ok(())
    }
}

/// A table by its columns, all of one length.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    columns: Vec<Column>,
}

#[derive(Clone, Debug, PartialEq)]
struct Column {
    name: String,
    cells: Cells,
}

#[derive(Clone, Debug, PartialEq)]
enum Cells {
    Text(Vec<String>),
    Count(Vec<u64>),
    /// NaN where there is none.
    Number(Vec<f64>),
}

impl Table {
    /// The runs of an experiment, cell by cell and policy by policy. What the sweeps set is a column each.
    pub fn new(cells: &[Cell], measured: &[Measured]) -> Table {
        let all = cells.iter().zip(measured);
        let rows: Vec<Run> = all.flat_map(|(cell, measured)| runs(cell, measured)).collect();
        let text = |of: &dyn Fn(&Run) -> String| Cells::Text(rows.iter().map(of).collect());
        let number = |of: &dyn Fn(&Run) -> f64| Cells::Number(rows.iter().map(of).collect());
        let mut columns = vec![("scenario".to_owned(), text(&|run| run.cell.scenario.clone()))];
        for path in cells.first().into_iter().flat_map(|cell| cell.sweep.keys()) {
            columns.push((path.clone(), text(&|run| run.cell.sweep.get(path).cloned().unwrap_or_default())));
        }
        columns.push(("policy".to_owned(), text(&|run| run.cell.contenders[run.contender].label.clone())));
        let seeds = rows.iter().map(|run| run.cell.cases[run.seed].seed);
        columns.push(("seed".to_owned(), Cells::Count(seeds.collect())));
        columns.push(("regime".to_owned(), text(&|run| run.regime.clone())));
        columns.push((
            "stall_bound_s".to_owned(),
            number(&|run| run.measured.bounds[run.seed].unwrap_or(f64::NAN)),
        ));
        for (place, metric) in METRICS.iter().enumerate() {
            let figure = number(&|run| run.measured.runs[run.contender][run.seed][place]);
            columns.push((metric.name.to_owned(), figure));
        }
        Table { columns: columns.into_iter().map(|(name, cells)| Column { name, cells }).collect() }
    }

    fn rows(&self) -> usize {
        self.columns.first().map_or(0, |column| column.cells.len())
    }

    fn csv(&self, out: impl Write) -> io::Result<()> {
        let mut writer = csv::Writer::from_writer(out);
        writer.write_record(self.columns.iter().map(|column| &column.name))?;
        for row in 0..self.rows() {
            writer.write_record(self.columns.iter().map(|column| match column.cells.value(row) {
                Value::Null => String::new(),
                Value::String(text) => text,
                number => number.to_string(),
            }))?;
        }
        writer.flush()
    }

    fn json(&self, mut out: impl Write) -> io::Result<()> {
        let object = |row| {
            let values = self.columns.iter().map(|column| (column.name.clone(), column.cells.value(row)));
            values.collect::<Map<_, _>>()
        };
        let objects: Vec<_> = (0..self.rows()).map(object).collect();
        serde_json::to_writer_pretty(&mut out, &objects)?;
        out.write_all(b"\n")
    }

    fn parquet(&self, out: impl Write + Send) -> Result<(), ParquetError> {
        let fields = self.columns.iter().map(|column| column.parquet_type().map(Arc::new));
        let schema =
            Type::group_type_builder("runs").with_fields(fields.collect::<Result<_, _>>()?).build()?;
        let mut writer = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(WriterProperties::new()))?;
        let mut group = writer.next_row_group()?;
        self.columns.iter().try_for_each(|column| column.cells.parquet(&mut group))?;
        group.close()?;
        writer.close()?;
        Ok(())
    }
}

/// One run of an experiment.
struct Run<'a> {
    cell: &'a Cell,
    measured: &'a Measured,
    regime: String,
    contender: usize,
    seed: usize,
}

fn runs<'a>(cell: &'a Cell, measured: &'a Measured) -> impl Iterator<Item = Run<'a>> {
    let regime = Pressure::new(measured).regime().to_string();
    let of_contender = move |contender| {
        let regime = regime.clone();
        (0..cell.cases.len()).map(move |seed| Run { cell, measured, regime: regime.clone(), contender, seed })
    };
    (0..cell.contenders.len()).flat_map(of_contender)
}

impl Column {
    fn parquet_type(&self) -> Result<Type, ParquetError> {
        let (physical, logical) = match self.cells {
            Cells::Text(_) => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Cells::Count(_) => (Physical::INT64, Some(LogicalType::integer(64, false))),
            Cells::Number(_) => (Physical::DOUBLE, None),
        };
        let column = Type::primitive_type_builder(&self.name, physical).with_logical_type(logical);
        column.with_repetition(Repetition::REQUIRED).build()
    }
}

impl Cells {
    fn len(&self) -> usize {
        match self {
            Cells::Text(values) => values.len(),
            Cells::Count(values) => values.len(),
            Cells::Number(values) => values.len(),
        }
    }

    /// The value of a row; null for NaN.
    fn value(&self, row: usize) -> Value {
        match self {
            Cells::Text(values) => Value::from(values[row].as_str()),
            Cells::Count(values) => Value::from(values[row]),
            Cells::Number(values) => Value::from(values[row]),
        }
    }

    fn parquet<W: Write + Send>(
        &self,
        group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<(), ParquetError> {
        let Some(mut column) = group.next_column()? else { return Ok(()) };
        match self {
            Cells::Text(values) => {
                let bytes: Vec<ByteArray> = values.iter().map(|text| text.as_str().into()).collect();
                column.typed::<ByteArrayType>().write_batch(&bytes, None, None)?
            }
            Cells::Count(values) => {
                // Parquet stores an unsigned number in the bits of a signed one.
                let bits: Vec<i64> = values.iter().map(|count| count.cast_signed()).collect();
                column.typed::<Int64Type>().write_batch(&bits, None, None)?
            }
            Cells::Number(values) => column.typed::<DoubleType>().write_batch(values, None, None)?,
        };
        column.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;

    fn table() -> Table {
        let column = |name: &str, cells| Column { name: name.to_owned(), cells };
        Table {
            columns: vec![
                column("policy", Cells::Text(vec!["lru".into(), "a \"b\", c".into()])),
                column("seed", Cells::Count(vec![7, u64::MAX])),
                column("stall_s", Cells::Number(vec![0.1, f64::NAN])),
            ],
        }
    }

    #[test]
    fn all_forms_say_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["t.csv", "t.json", "t.parquet"] {
            TableFile::create(&path(name)).unwrap().write(&table()).unwrap();
        }
        let csv = std::fs::read_to_string(path("t.csv")).unwrap();
        assert_eq!(csv, format!("policy,seed,stall_s\nlru,7,0.1\n\"a \"\"b\"\", c\",{},\n", u64::MAX));
        let json: Value = serde_json::from_slice(&std::fs::read(path("t.json")).unwrap()).unwrap();
        assert_eq!(json[0], serde_json::json!({ "policy": "lru", "seed": 7, "stall_s": 0.1 }));
        assert_eq!((&json[1]["seed"], &json[1]["stall_s"]), (&Value::from(u64::MAX), &Value::Null));
        let reader = SerializedFileReader::new(std::fs::File::open(path("t.parquet")).unwrap()).unwrap();
        let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
        let fields =
            |row: usize| rows[row].get_column_iter().map(|(_, field)| field.clone()).collect::<Vec<_>>();
        assert_eq!(fields(0), [Field::Str("lru".into()), Field::ULong(7), Field::Double(0.1)]);
        assert_eq!(fields(1)[1], Field::ULong(u64::MAX));
    }

    #[test]
    fn a_name_says_how() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["t", "t.xlsx"] {
            let refused = TableFile::create(&folder.path().join(name)).err().unwrap().to_string();
            assert!(refused.contains(".csv, .json or .parquet"), "{refused}");
        }
        let absent = TableFile::create(&folder.path().join("absent/t.csv")).err().unwrap();
        assert!(matches!(absent, TableError::File(_)));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "nothing is left behind");
    }
}
