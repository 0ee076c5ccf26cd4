//! The column chunks of a segment, page by page.
//!
//! The library that reads Parquet makes a context of zstd, for both directions, for every chunk that it
//! opens. A read of a few rows of many devices opens hundreds of chunks: here all chunks of a scan share
//! one context. So that the library leaves zstd alone it is told that nothing is compressed, and the
//! pages that it finds are unpacked here.

use std::{sync::Arc, vec};

use bytes::Bytes;
use parking_lot::Mutex;
use parquet::{
    arrow::arrow_reader::RowGroups,
    basic::Compression,
    column::page::{Page, PageIterator, PageMetadata, PageReader},
    errors::{ParquetError, Result},
    file::{
        metadata::{ParquetMetaData, RowGroupMetaData},
        serialized_reader::SerializedPageReader,
    },
};
use zstd::{bulk::Decompressor, zstd_safe::get_frame_content_size};

use super::segment::{CheckedFile, Segment, usize_of};

/// One for all chunks of a scan, which are read by one thread at a time.
type Unpacker = Arc<Mutex<Decompressor<'static>>>;

/// Row groups of a segment.
pub(super) struct Chunks {
    file: Arc<CheckedFile>,
    metadata: Arc<ParquetMetaData>,
    groups: Vec<usize>,
    unpacker: Unpacker,
}

impl Chunks {
    pub(super) fn new(segment: &Segment, groups: Vec<usize>) -> Result<Self> {
        Ok(Self {
            file: Arc::new(segment.file.clone()),
            metadata: Arc::clone(segment.metadata.metadata()),
            groups,
            unpacker: Arc::new(Mutex::new(Decompressor::new()?)),
        })
    }
}

impl RowGroups for Chunks {
    fn num_rows(&self) -> usize {
        let rows = self.row_groups().map(rows_of);
        rows.sum()
    }

    fn column_chunks(&self, column: usize) -> Result<Box<dyn PageIterator>> {
        Ok(Box::new(OfColumn {
            file: Arc::clone(&self.file),
            metadata: Arc::clone(&self.metadata),
            groups: self.groups.clone().into_iter(),
            column,
            unpacker: Arc::clone(&self.unpacker),
        }))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        let group = |group: &usize| self.metadata.row_group(*group);
        Box::new(self.groups.iter().map(group))
    }

    fn metadata(&self) -> &ParquetMetaData {
        &self.metadata
    }
}

fn rows_of(group: &RowGroupMetaData) -> usize {
    usize::try_from(group.num_rows()).unwrap_or(0)
}

/// The chunks of one column.
struct OfColumn {
    file: Arc<CheckedFile>,
    metadata: Arc<ParquetMetaData>,
    groups: vec::IntoIter<usize>,
    column: usize,
    unpacker: Unpacker,
}

impl OfColumn {
    fn chunk(&self, group: usize) -> Result<Box<dyn PageReader>> {
        let about_group = self.metadata.row_group(group);
        let about = about_group.column(self.column);
        let locations = self.metadata.page_index();
        let locations = locations.and_then(|i| i.page_locations(group, self.column).cloned());
        let pages = |about| {
            let file = Arc::clone(&self.file);
            SerializedPageReader::new(file, about, rows_of(about_group), locations)
        };
        if !matches!(about.compression(), Compression::ZSTD(_)) {
            return Ok(Box::new(pages(about)?));
        }
        let as_found = about.clone().into_builder();
        let as_found = as_found
            .set_compression(Compression::UNCOMPRESSED)
            .build()?;
        Ok(Box::new(Packed {
            pages: pages(&as_found)?,
            unpacker: Arc::clone(&self.unpacker),
        }))
    }
}

impl Iterator for OfColumn {
    type Item = Result<Box<dyn PageReader>>;

    fn next(&mut self) -> Option<Self::Item> {
        let group = self.groups.next()?;
        Some(self.chunk(group))
    }
}

impl PageIterator for OfColumn {}

/// A chunk whose pages are packed with zstd.
struct Packed {
    pages: SerializedPageReader<CheckedFile>,
    unpacker: Unpacker,
}

impl Packed {
    fn unpacked(&self, page: Option<Page>) -> Result<Option<Page>> {
        let Some(mut page) = page else {
            return Ok(None);
        };
        match &mut page {
            Page::DataPage { buf, .. } | Page::DictionaryPage { buf, .. } => {
                *buf = self.unpack(buf)?;
            }
            Page::DataPageV2 { .. } => {
                return Err(ParquetError::NYI("data pages of version 2".to_owned()));
            }
        }
        Ok(Some(page))
    }

    fn unpack(&self, packed: &Bytes) -> Result<Bytes> {
        if packed.is_empty() {
            return Ok(Bytes::new());
        }
        let length = get_frame_content_size(packed).ok().flatten();
        let length = length.ok_or_else(|| {
            let what = "a page does not say how long it is";
            ParquetError::General(what.to_owned())
        })?;
        let page = self.unpacker.lock().decompress(packed, usize_of(length))?;
        Ok(page.into())
    }
}

impl Iterator for Packed {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Packed {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        self.unpacked(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }

    fn supports_deferred_dictionary(&self) -> bool {
        self.pages.supports_deferred_dictionary()
    }

    fn take_deferred_dictionary(&mut self) -> Result<Option<Page>> {
        let page = self.pages.take_deferred_dictionary()?;
        self.unpacked(page)
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.pages.at_record_boundary()
    }
}
