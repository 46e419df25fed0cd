// The form of a dashboard by Grafana's published types. A test appends `: Dashboard = ` and a
// dashboard, for which the compiler then reports each unknown field, type and value.
import type * as schema from '@grafana/schema';
import type * as bars from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as series from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// As JSON has it: the value of an enum instead of its name.
type Json<T> = unknown extends T ? T
  : T extends string ? `${T}`
  : T extends object ? { [K in keyof T]: Json<T[K]> }
  : T;

// A kind of panel with its own options, which all have defaults.
type Kind<Type extends string, Options, Custom> =
  & Omit<schema.Panel, 'type' | 'options' | 'fieldConfig' | 'links'>
  & {
    type: Type;
    options: Partial<Options>;
    fieldConfig: Omit<schema.FieldConfigSource, 'defaults'> & {
      defaults: Omit<schema.FieldConfig, 'custom'> & { custom?: Partial<Custom> };
    };
    links?: Pick<schema.DashboardLink, 'title' | 'url' | 'targetBlank'>[];
  };

// The fields that the Prometheus data source reads from an annotation are not in the schema.
type Annotation = schema.AnnotationQuery & {
  expr: string;
  step: string;
  titleFormat: string;
  textFormat: string;
  useValueForTime?: boolean;
};

type Dashboard = Json<
  Omit<schema.Dashboard, 'panels' | 'annotations'> & {
    annotations: { list: Annotation[] };
    panels: (
      | schema.RowPanel
      | Kind<'bargauge', bars.Options, {}>
      | Kind<'stat', stat.Options, {}>
      | Kind<'table', table.Options, table.FieldConfig>
      | Kind<'timeseries', series.Options, series.FieldConfig>
    )[];
  }
>;

export const dashboard
