//! Values that the API, the command line and the app share: the requests and replies of `/hive/v1`, and what they consist
//! of. Plain data, without the node, MLX or the network.
//!
//! What holds: the JSON stays as it is (`golden/`), and what another version writes can be read. A field that is missing
//! has its default, one that is not known is skipped, and a name that is not known becomes the `Unknown` or `Other` of its
//! enum. Requests are stricter where a typo would pass for a wish.

mod answers;
mod conversations;
mod errors;
mod hello;
mod machines;
mod models;
mod pairing;
mod profile;
mod settings;
mod sharing;
mod status;
mod tokens;
mod words;

pub use answers::{AnswerFigures, AnswerNews, ReadingProgress};
pub use conversations::{ConversationMarkdown, ConversationQuery, ConversationTitle};
pub use errors::{ErrorBody, ErrorDetails, ErrorKind, ErrorReply};
pub use hello::{Hello, HelloQuery};
pub use machines::{
    Condition, Link, LinkKind, MeasuredPath, Paired, PeerName, PeerState, PeerView, Rights, RightsChange,
};
pub use models::{
    LoadRequest, LoadingView, ModelName, ModelOnDisk, ModelView, PlanQuery, PlanView, PlannedStage, StageLayers,
    StageView,
};
pub use pairing::{Approval, Invitation, InviteRequest, JoinRequest, PairingCode};
pub use profile::{Heat, ModelCopy, Power, Profile};
pub use settings::Accent;
pub use sharing::{SharingChange, SharingReply};
pub use status::{Done, Notice, Status, Update};
pub use tokens::{IssuedToken, NewToken, OwnerTokenRenewal, Right, TokenList, TokenView};
pub use words::{grouped, megabytes};
