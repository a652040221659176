//! Blobs of the safetensors format are read tensor by tensor.

use std::sync::Arc;

use underbelly::{Database, ReadError, Timestamp};

use super::blobs::{CHUNK, chunk_files, chunked, in_memory, noise, put, store};
use super::smile;

/// A file of the safetensors format: 8 bytes of length, the header, the data.
fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// The data of tensors begins on a page of its file, so that each tensor can be read in place, and nothing else is read.
#[test]
fn tensors_are_read_by_name_and_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::create_with(dir.path().join("db"), chunked()).unwrap();
    let data = noise(9, 3 * CHUNK + 32);
    let header = format!(
        r#"{{"__metadata__":{{"by":"test"}},"bias":{{"dtype":"F32","shape":[8],"data_offsets":[0,32]}},"weight":{{"dtype":"F32","shape":[{},2],"data_offsets":[32,{}]}}}}"#,
        3 * CHUNK / 8,
        data.len(),
    );
    let body = safetensors(&header, &data);
    put(&db, smile("net"), &store(&db, &body));
    let model = db.snapshot().model(&smile("net")).unwrap().unwrap();
    let names: Vec<String> = model.tensors().unwrap().into_iter().map(|tensor| tensor.name).collect();
    assert_eq!(names, ["bias", "weight"]);
    let (bias, weight) = (model.tensor("bias").unwrap(), model.tensor("weight").unwrap());
    assert_eq!((&*bias.data, &*weight.data), (&data[..32], &data[32..]));
    assert_eq!((&*weight.info.dtype, &weight.info.shape[..]), ("F32", &[3 * CHUNK as u64 / 8, 2][..]));
    assert!(bias.data.is_mapped() && weight.data.is_mapped());
    assert_eq!(bias.data.as_ptr().align_offset(64), 0);
    assert!(model.blob().unwrap().is_mapped());
    assert_eq!(*model.blob().unwrap(), *body);
    assert!(matches!(model.tensor("none"), Err(ReadError::Tensor { .. })));
    let told = model.tensor("none").unwrap_err().to_string();
    assert!(told.contains("there are \"bias\""), "{told}");
    // Other words in the header: the same data is not written again.
    let longer = safetensors(&header.replace("test", "somebody else"), &data);
    let stored = store(&db, &longer);
    assert!(stored.bytes_written() < 1_000, "{}", stored.bytes_written());
    put(&db, smile("net"), &stored);
    let model = db.snapshot().model(&smile("net")).unwrap().unwrap();
    assert_eq!((&*model.blob().unwrap(), &*model.tensor("bias").unwrap().data), (&longer[..], &data[..32]));
}

/// Blobs that lie about their tensors, or have none, are refused and never read beyond their end.
#[test]
fn headers_of_tensors_are_not_believed() {
    let (_, db) = in_memory();
    let entry = |offsets: &str| format!(r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":{offsets}}}}}"#);
    let whole = safetensors(&entry("[0,4]"), &[1, 2, 3, 4]);
    let bad = [
        b"".to_vec(),
        b"pickle".to_vec(),
        safetensors("[1]", &[]),
        safetensors("{", &[]),
        whole[..whole.len() - 1].to_vec(),
        whole[..20].to_vec(),
        safetensors(&entry("[0,5]"), &[1, 2, 3, 4]),
        safetensors(&entry("[3,2]"), &[1, 2, 3, 4]),
        // Fewer bytes than its numbers take.
        safetensors(&entry("[0,3]"), &[1, 2, 3, 4]),
        safetensors(&entry("[0,4]").replace("U8", "F32"), &[1, 2, 3, 4]),
        safetensors(&entry("[0,4]").replace("[4]", "[4,18446744073709551615]"), &[1, 2, 3, 4]),
        safetensors(&entry("[0,18446744073709551615]"), &[1, 2, 3, 4]),
        safetensors(&entry("[-1,4]"), &[1, 2, 3, 4]),
        safetensors(&entry("[0]"), &[1, 2, 3, 4]),
        safetensors(r#"{"a":1}"#, &[1, 2, 3, 4]),
        safetensors(
            &entry("[0,4]").replace("\"shape\":[", &format!("\"shape\":[{}", "1,".repeat(65))),
            &[1, 2, 3, 4],
        ),
    ];
    for (n, body) in bad.into_iter().enumerate() {
        put(&db, smile("net"), &store(&db, &body));
        let model = db.snapshot().model(&smile("net")).unwrap().unwrap();
        for refused in [model.tensors().map(|_| ()), model.tensor("a").map(|_| ())] {
            assert!(matches!(refused, Err(ReadError::Tensor { .. })), "{n}");
        }
    }
    put(&db, smile("net").with("timestamp", Timestamp(2)), &store(&db, &whole));
    let model = db.snapshot().model(&smile("net")).unwrap().unwrap();
    assert_eq!(*model.tensor("a").unwrap().data, [1, 2, 3, 4]);
}

/// A header that is written by itself ends with a page all the same, so that the blob is one stretch of the file.
#[test]
fn a_header_that_comes_by_itself_stands_before_its_data() {
    let (_, db) = in_memory();
    let mut header = r#"{"w":{"dtype":"U8","shape":[200000],"data_offsets":[0,200000]}}"#.to_string();
    header.extend(std::iter::repeat_n(' ', 20_472 - header.len()));
    let data: Vec<u8> = (0..200_000u32).map(|at| (at % 251) as u8).collect();
    let mut writer = db.blob_writer();
    let head = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    writer.push(&head).unwrap();
    writer.push(&data).unwrap();
    put(&db, smile("fx"), &writer.finish().unwrap());
    let model = db.snapshot().model(&smile("fx")).unwrap().unwrap();
    let (whole, first) = (model.blob().unwrap(), model.range(0..1).unwrap());
    assert_eq!(*whole, *[head, data].concat());
    assert_eq!(whole.as_ptr(), first.as_ptr(), "it is lent in place");
}

/// What is damaged keeps nobody from the tensors that lie elsewhere.
#[test]
fn of_a_blob_the_bytes_of_a_tensor_alone_are_read() {
    let (disk, db) = in_memory();
    let data = noise(9, 4 * CHUNK);
    let entry = |from: usize, to: usize| {
        format!(r#"{{"dtype":"U8","shape":[{}],"data_offsets":[{from},{to}]}}"#, to - from)
    };
    let (bias, weight) = (entry(0, 32), entry(32, data.len()));
    let body = safetensors(&format!(r#"{{"bias":{bias},"weight":{weight}}}"#), &data);
    put(&db, smile("net"), &store(&db, &body));
    db.close().unwrap();
    let name = chunk_files(&disk).remove(0);
    let mut bytes = disk.contents(&name).unwrap();
    let far = &data[3 * CHUNK..3 * CHUNK + 64];
    let at = bytes.windows(far.len()).position(|window| window == far).unwrap();
    bytes[at] ^= 4;
    disk.overwrite(&name, bytes);
    let db = Database::open_on(Arc::new(disk), chunked()).unwrap();
    let model = db.snapshot().model(&smile("net")).unwrap().unwrap();
    assert_eq!(*model.tensor("bias").unwrap().data, data[..32]);
    assert!(model.tensor("weight").is_err() && model.blob().is_err());
}
