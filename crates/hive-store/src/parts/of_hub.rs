//! From a hub's listing to a manifest, and from a manifest's origin back to a listing.

use super::manifest::{Manifest, ManifestFile, Origin};
use crate::error::{FindError, HubError};
use crate::file_name::FileName;
use crate::hub::{Hub, Listing};
use crate::name::Part;

impl Manifest {
    /// The manifest of a model on a hub. All listings of a commit give the same one.
    pub fn of(listing: &Listing) -> Self {
        let origin = Origin { repository: listing.repository(), commit: listing.commit.clone() };
        let file = |file: &crate::RemoteFile| ManifestFile { name: file.name.clone(), bytes: file.bytes };
        let mut files: Vec<ManifestFile> = listing.files.iter().map(file).collect();
        files.sort_by(|one, other| one.name.cmp(&other.name));
        Self { origin: Some(origin), digest: None, files, gguf: listing.gguf.clone() }
    }
}

impl Hub {
    /// Lists the model of an origin again, as another machine did: the folder, or the GGUF model that `gguf` belongs to.
    ///
    /// The hub decides which files there are: compare [`Manifest::of`] the listing with the manifest that the origin is
    /// from.
    pub async fn listing_at(&self, origin: &Origin, gguf: Option<&FileName>) -> Result<Listing, FindError> {
        let not_found = || {
            let what = format!("{}@{}", origin.repository, origin.commit);
            HubError::NotFound { host: self.host(), what, did_you_mean: None }
        };
        let mut model = origin.model().ok_or_else(not_found)?;
        if let Some(gguf) = gguf {
            model.part = Part::File(gguf.as_str().to_owned());
        }
        self.find(&model).await
    }
}
