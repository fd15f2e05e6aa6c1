//! Projects: their names, for people (`protocol.md` §2.2).

use serde::Deserialize;
use serde_json::json;

use super::{Client, Error};

#[derive(Deserialize)]
struct Projects {
    #[serde(default)]
    projects: Vec<Project>,
}

#[derive(Deserialize)]
struct Project {
    id: String,
    #[serde(default)]
    name: String,
}

impl Client {
    /// Ids and names of these projects; who is not in the answer does not exist. None asked for: nothing is sent.
    pub async fn project_names(&self, ids: &[String]) -> Result<Vec<(String, String)>, Error> {
        let mut names = Vec::new();
        for ids in ids.chunks(500) {
            let body = json!({"id": ids, "only_fields": ["id", "name"], "search_hidden": true});
            let answer: Projects = self.call("projects.get_all", &body).await?;
            names.extend(
                answer
                    .projects
                    .into_iter()
                    .map(|project| (project.id, project.name)),
            );
        }
        Ok(names)
    }
}
