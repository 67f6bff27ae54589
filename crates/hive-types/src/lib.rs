//! Types shared by the API, the command line and the app: the requests and replies of `/hive/v1`. Plain data, without
//! the node, MLX or the network.
//!
//! Invariants: the JSON is stable (`golden/`), and what another version writes can be read. A missing field takes its
//! default, an unknown field is skipped, and an unknown name becomes its enum's `Unknown` or `Other`. Requests are
//! stricter where a typo would otherwise be taken for valid input.

mod absence;
mod answers;
mod browsers;
mod catalogue;
mod condition;
mod conversations;
mod errors;
mod hello;
mod known;
mod machines;
mod models;
mod pairing;
mod profile;
mod reasons;
mod settings;
mod sharing;
mod status;
mod tokens;
mod trouble;
mod words;

pub use absence::{Absence, NotSharing};
pub use answers::{AnswerFigures, AnswerNews, ReadingProgress};
pub use browsers::{BrowserAccess, BrowserCertificate, BrowserLink, NewBrowser, ViewQuery};
pub use catalogue::{CatalogueModel, CatalogueQuery, CatalogueVariant, CatalogueView, Fit, FitView};
pub use condition::Condition;
pub use conversations::{
    AskInConversation, ConversationDraft, ConversationInstructions, ConversationMarkdown, ConversationMessage,
    ConversationQuery, ConversationSwitch, ConversationTitle, NewConversation,
};
pub use errors::{ErrorBody, ErrorDetails, ErrorKind, ErrorReply};
pub use hello::{Hello, HelloQuery};
pub use known::if_known;
pub use machines::{Link, LinkKind, MeasuredPath, Paired, PeerName, PeerState, PeerView, Rights, RightsChange};
pub use models::{
    Alias, AliasName, HubToken, LoadRequest, LoadingView, ModelName, ModelOnDisk, ModelView, NewHubToken, PlanQuery,
    PlanView, PlannedStage, StageLayers, StageView, TokenCount, TokenCountRequest,
};
pub use pairing::{Approval, Invitation, InviteRequest, JoinRequest, PairingCode};
pub use profile::{Heat, ModelCopy, Power, Profile};
pub use reasons::Reason;
pub use settings::{Accent, Language, Look};
pub use sharing::{SharingChange, SharingReply};
pub use status::{Done, MachineWork, Notice, Status, Update};
pub use tokens::{IssuedToken, NewToken, OwnerTokenRenewal, Right, TokenList, TokenView};
pub use trouble::{Loss, Trouble};
pub use words::{grouped, megabytes};
