//! Options that become a tool's request: a struct which knows no parser.

/// Has clap read structs that do not know it: `options! { Join { #[arg(long)] no_stdin: bool, } }`.
///
/// The struct is declared elsewhere, with the same fields. Here each has its help, and its attributes for clap.
#[macro_export]
macro_rules! options {
    ($($(#[$on:meta])* $request:ty { $($(#[$of:meta])* $field:ident: $type:ty,)* })*) => { $(
        const _: () = {
            #[derive(clap::Args)]
            $(#[$on])*
            #[group(id = stringify!($request))]
            struct Options { $($(#[$of])* $field: $type,)* }

            impl clap::Args for $request {
                fn augment_args(command: clap::Command) -> clap::Command { Options::augment_args(command) }
                fn augment_args_for_update(command: clap::Command) -> clap::Command { Self::augment_args(command) }
            }

            impl clap::FromArgMatches for $request {
                fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
                    Self::from_arg_matches_mut(&mut matches.clone())
                }

                fn from_arg_matches_mut(matches: &mut clap::ArgMatches) -> Result<Self, clap::Error> {
                    let Options { $($field),* } = Options::from_arg_matches_mut(matches)?;
                    Ok(Self { $($field),* })
                }

                fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
                    Self::from_arg_matches(matches).map(|request| *self = request)
                }
            }
        };
    )* };
}

/// Names the values of an enum that does not know clap, each with its help: `values! { Color { Red = "red" "As blood" } }`.
#[macro_export]
macro_rules! values {
    ($($request:ty { $($value:ident = $name:literal $($help:literal)?,)* })*) => { $(
        impl clap::ValueEnum for $request {
            fn value_variants<'a>() -> &'a [Self] { &[$(Self::$value),*] }

            fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
                Some(match self { $(Self::$value => clap::builder::PossibleValue::new($name)$(.help($help))?,)* })
            }
        }
    )* };
}
