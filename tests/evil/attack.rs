//! The attacks: one list, of which the enum, the names, the list of all and
//! the tests are made. The evil source and the tests share this file; both
//! match on the enum without a wildcard, so that an attack that is added here
//! has to be carried out and to be judged.

/// Calls a macro with every attack: its documentation, variant and name.
macro_rules! for_each_attack {
    ($then:ident) => {
        $then! {
            /// The canary: an honest source in the evil one's clothes.
            Canary = canary,
            /// The same, and the mirror holds nothing before.
            CanaryFromNothing = canary_from_nothing,

            // Histories: honest frames of stores that contradict each other.
            /// A context grew on another branch since the mirror's sync.
            RewriteAfterSync = rewrite_after_sync,
            /// The same, and no stored run ends where the mirror stands.
            RewriteOtherRuns = rewrite_other_runs,
            /// A context has the mirror's size and another root.
            SameSizeTwoRoots = same_size_two_roots,
            /// Another text for the epoch the mirror holds.
            SameEpochTwoTexts = same_epoch_two_texts,
            /// A context is smaller under a newer head.
            ShrunkContext = shrunk_context,
            /// A context is gone under a newer head with larger counts.
            DroppedContext = dropped_context,
            /// A restored backup, served as it is.
            Shrink = shrink,
            /// A restored backup that went on another way, still older.
            ShrinkThenDiverge = shrink_then_diverge,
            /// An old head for ever, whatever is stored behind it.
            ReplayedOldHead = replayed_old_head,
            /// One history for this mirror, another one for the next.
            TwoViews = two_views,

            // Names and keys.
            /// The pinned key signs a head that bears another name.
            WrongOriginName = wrong_origin_name,
            /// A ledger of the same name under another key.
            WrongOriginKey = wrong_origin_key,
            /// The source answers under a node key that is not the pinned one.
            WrongNodeKey = wrong_node_key,

            // Signed lies: the evil source has the origin's key.
            /// A newly signed directory without one of the contexts.
            ForgedDrop = forged_drop,
            /// A signed head with more entries than its directory has.
            InflatedCounts = inflated_counts,
            /// The mirror's directory root, newer, with other counts.
            SameRootOtherCounts = same_root_other_counts,
            /// A newer head with the counts of an older one.
            FewerCounts = fewer_counts,
            /// Signed entries whose Lamport time goes back.
            InvalidEntries = invalid_entries,
            /// A signed node that breaks a rule of directories.
            InvalidDirectory = invalid_directory,
            /// A rotation to a new key that the new key did not sign.
            HalfRotation = half_rotation,
            /// A head that is no rotation, in front of the newest one.
            HeadBeforeHead = head_before_head,
            /// A signed head of a later term.
            LaterTerm = later_term,

            // One byte.
            /// A flipped byte in a head's note.
            FlippedNote = flipped_note,
            /// A flipped byte in a directory node.
            FlippedNode = flipped_node,
            /// A flipped byte in an opening.
            FlippedOpening = flipped_opening,
            /// A flipped byte in an entry's header.
            FlippedHeader = flipped_header,
            /// A flipped byte in a payload that lies in its run.
            FlippedInlinePayload = flipped_inline_payload,
            /// A flipped byte in a payload that lies outside.
            FlippedOutsidePayload = flipped_outside_payload,
            /// A flipped byte in a right hash.
            FlippedRightHash = flipped_right_hash,

            // Other bytes than were asked for.
            /// The stream ends before the last span.
            MissingTail = missing_tail,
            /// Entries are announced and none is sent.
            NothingAfterBegin = nothing_after_begin,
            /// Entries of another context under the right echo.
            OtherEntries = other_entries,
            /// Two entries of a run change places, renumbered.
            ReorderedEntries = reordered_entries,
            /// Two runs of a span change places.
            ReorderedRuns = reordered_runs,
            /// A run is sent twice within its span.
            DuplicatedRun = duplicated_run,
            /// A run in the middle of a span is left out.
            Gap = gap,
            /// Half of a run, proven, and then the stream ends: what the mirror holds
            /// ends where no run of the source does.
            HalfRun = half_run,
            /// Runs are joined across the sizes of older heads.
            JoinedRuns = joined_runs,
            /// A whole node stands under another one's hash.
            OtherNode = other_node,
            /// A node comes without one of its openings.
            MissingOpening = missing_opening,
            /// The nodes end before all were answered.
            MissingNodes = missing_nodes,
            /// Nodes are said not to be served.
            WithheldNode = withheld_node,
            /// Payloads are said not to be served.
            WithheldPayload = withheld_payload,

            // Echoes of something else.
            /// The echo names another context.
            EchoContext = echo_context,
            /// The echo starts elsewhere.
            EchoStart = echo_start,
            /// The echo is about another size.
            EchoSize = echo_size,
            /// The node is answered under another hash.
            EchoNode = echo_node,
            /// The payload is answered under another hash.
            EchoPayload = echo_payload,

            // Consistency, about a rewritten context.
            /// No proof is given of how the histories relate.
            RefusesConsistency = refuses_consistency,
            /// The rewritten history is said to begin as the mirror's.
            LiesInConsistency = lies_in_consistency,
            /// The proof has a flipped byte.
            FailingProof = failing_proof,
            /// Nothing is answered, for ever.
            MuteConsistency = mute_consistency,
            /// The proof is about other sizes.
            EchoConsistency = echo_consistency,

            // Without end.
            /// Heads for ever on the stream of one answer.
            EndlessHeads = endless_heads,
            /// Nodes for ever, after the last that was asked for.
            EndlessNodes = endless_nodes,
            /// Spans for ever, after the promised size.
            EndlessSpans = endless_spans,
            /// Payloads for ever, after the last that was asked for.
            EndlessPayloads = endless_payloads,
            /// A reply with more notes than one may have.
            TooManyNotes = too_many_notes,

            // Frames that are none.
            /// A frame of 4 GiB is announced.
            LengthMax = length_max,
            /// A frame without a body.
            LengthZero = length_zero,
            /// One byte more than a span may have.
            LengthAboveLimit = length_above_limit,
            /// A kind of frame that does not exist.
            UnknownKind = unknown_kind,
            /// A request where a reply belongs.
            RequestAsReply = request_as_reply,
            /// A frame that is cut off by the stream's end.
            TruncatedFrame = truncated_frame,

            // Time.
            /// Half a frame, then silence.
            Stall = stall,
            /// A byte a second.
            Drip = drip,
            /// No answer at all, the connection stays.
            Mute = mute,

            // Refusals and closes.
            /// Everything is refused.
            RefusesEverything = refuses_everything,
            /// Every answer is broken off.
            ResetsEverything = resets_everything,
            /// The ledger is said to be empty.
            ClaimsNothing = claims_nothing,
            /// The connection is closed at a random byte, again and again.
            ClosesAtRandom = closes_at_random,
            /// Honest answers, and a flood of datagrams and streams.
            Flood = flood,
        }
    };
}

macro_rules! define {
    ($($(#[$doc:meta])* $variant:ident = $name:ident,)*) => {
        /// What an evil source does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Attack {
            $($(#[$doc])* $variant,)*
        }

        impl Attack {
            /// Every attack.
            pub(crate) const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name on the command line and among the tests.
            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($name),)*
                }
            }
        }
    };
}

for_each_attack!(define);
